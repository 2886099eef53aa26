"""A run by several client processes, where one Python process is too slow for the load.

The run knows every request and when it is due before it begins, and deals all of them out: nothing is
fetched while it lasts, so a process that is held back delays nobody else's requests. Processes are started
afresh, not forked; each opens its connections and says so, and all begin at one instant of the machine's
monotonic clock, which all processes share. That they do is checked: a stamp that a process gives on demand
must lie between asking and hearing it. When all have finished, each reads its answers and hands in its
records.

A process that is lost takes no request with it silently: what it was to send is in the run as failed, and the
run is void.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import BinaryIO, TypeVar

import msgspec

from sluice_bench.calibration import Calibration, calibrate_shards
from sluice_bench.engine_load import LoadSample
from sluice_bench.loops import LoadPlan, Loop, OpenLoop, SessionLoop
from sluice_bench.records import Failure, RequestRecord
from sluice_bench.runs.live import EVERY_S, LiveCounts, OnCounts
from sluice_bench.runs.shard import ShardRecords, ShardTask
from sluice_bench.runs.shard_messages import (
    LENGTH_BYTES,
    Assignment,
    Finished,
    FromShard,
    HandIn,
    Progress,
    Ready,
    Records,
    Refused,
    StartAt,
    TimeIs,
    ToShard,
    WhatTimeIsIt,
    frame,
    from_shard,
)
from sluice_bench.target import Target

MODULE = "sluice_bench.runs.shard_process"

START_AHEAD_NS = 100_000_000
"""From telling the processes when to begin until then."""

_GRACE_S = 30.0
"""After the hard stop, for a process to say that it has finished; then it is taken for lost."""

_NOTHING_YET = LiveCounts(sent=0, finished=0, failed=0, in_flight=0, reads=0, first_byte_ms=())


class ShardedRun(msgspec.Struct, frozen=True):
    """What came of all processes, in the order of the plan's requests."""

    records: list[RequestRecord]
    calibration: Calibration
    samples: tuple[LoadSample, ...]


def deal(plan: LoadPlan, processes: int) -> list[list[int]]:
    """The places of the requests that each process sends; never more processes than have work.

    An open loop's requests go round. A closed loop's go round its users, who are dealt out to the processes:
    each process has its users' requests, and each user as many as any other; of sessions, whole ones go.
    """
    units: Sequence[tuple[int, ...]] = [(place,) for place in range(len(plan.requests))]
    if isinstance(plan.loop, SessionLoop):
        units = plan.loop.sessions
    users = len(units) if isinstance(plan.loop, OpenLoop) else plan.loop.concurrency
    processes = max(1, min(processes, users, len(units)))
    shares: list[list[int]] = [[] for _ in range(processes)]
    for number, unit in enumerate(units):
        shares[number % users % processes].extend(unit)
    return [sorted(share) for share in shares]


def share_of(plan: LoadPlan, places: Sequence[int], shard: int, processes: int) -> LoadPlan:
    """One process's part of a plan."""
    loop: Loop
    if isinstance(plan.loop, OpenLoop):
        loop = OpenLoop(tuple(plan.loop.offsets_ns[place] for place in places))
    elif isinstance(plan.loop, SessionLoop):
        loop = _part_of_sessions(plan.loop, places, _part(plan.loop.concurrency, shard, processes))
    else:
        loop = msgspec.structs.replace(plan.loop, concurrency=_part(plan.loop.concurrency, shard, processes))
    return msgspec.structs.replace(
        plan,
        requests=[plan.requests[place] for place in places],
        loop=loop,
        warm_connections=_part(plan.warm_connections, shard, processes),
    )


def _part_of_sessions(loop: SessionLoop, places: Sequence[int], users: int) -> SessionLoop:
    here = {place: number for number, place in enumerate(places)}
    return SessionLoop(
        concurrency=users,
        sessions=tuple(
            tuple(here[place] for place in session) for session in loop.sessions if session[0] in here
        ),
        think_ns=tuple(loop.think_ns[place] for place in places),
    )


def _part(whole: int, shard: int, processes: int) -> int:
    return whole // processes + (shard < whole % processes)


def run_sharded(
    plan: LoadPlan,
    processes: int,
    null_server: Target,
    *,
    enough_probes: int,
    sampled_server: Target | None = None,
    on_counts: OnCounts | None = None,
) -> ShardedRun:
    """Carry out a plan with several client processes.

    Raises `OSError` when a server is not there, and `ChildProcessError`, one of its kind, when a process is
    lost before the start.
    """
    shares = deal(plan, processes)
    tasks = [
        ShardTask(
            plan=share_of(plan, places, shard, len(shares)),
            null_server=null_server,
            shard=shard,
            places=tuple(places),
            enough_probes=enough_probes,
            sampled_server=sampled_server if shard == 0 else None,
        )
        for shard, places in enumerate(shares)
    ]
    return asyncio.run(_carry_out(tasks, on_counts))


async def _carry_out(tasks: Sequence[ShardTask], on_counts: OnCounts | None) -> ShardedRun:
    shards, board = [_Shard(task) for task in tasks], _Board(len(tasks), on_counts)
    try:
        _raise_first(await asyncio.gather(*(shard.get_ready() for shard in shards), return_exceptions=True))
        for shard in shards:  # one after another, so that each answer is as prompt as can be
            await shard.check_clock()
        start_ns = time.perf_counter_ns() + START_AHEAD_NS
        await asyncio.gather(*(shard.load(start_ns, board.told) for shard in shards))
        board.tell()
        found = await asyncio.gather(*(shard.hand_in(start_ns) for shard in shards))
    finally:
        await asyncio.gather(*(shard.end() for shard in shards))
    return merged(found)


def _raise_first(results: Sequence[BaseException | None]) -> None:
    """Of all that went wrong; only now, when nobody is at work any more."""
    for found in results:
        if found is not None:
            raise found


def merged(found: Sequence[ShardRecords]) -> ShardedRun:
    """Of all processes together."""
    records = [record for shard in found for record in shard.records]
    return ShardedRun(
        records=sorted(records, key=lambda record: record.index),
        calibration=calibrate_shards([(shard.records, shard.probes) for shard in found]),
        samples=tuple(sample for shard in found for sample in shard.samples),
    )


_Told = Callable[[int, LiveCounts], None]
"""Number of the process, and its counts."""

_Message = TypeVar("_Message")


def _expect(message: FromShard, kind: type[_Message]) -> _Message:
    if not isinstance(message, kind):
        raise TypeError(f"a client process said {type(message).__name__} in place of {kind.__name__}")
    return message


class _Board:
    """Counts of all processes; told on once a second, however many processes there are."""

    def __init__(self, shards: int, on_counts: OnCounts | None) -> None:
        self._counts = [_NOTHING_YET] * shards
        self._on_counts = on_counts
        self._told_s = 0.0

    def told(self, shard: int, found: LiveCounts) -> None:
        """One process's counts."""
        waits = self._counts[shard].first_byte_ms + found.first_byte_ms
        self._counts[shard] = msgspec.structs.replace(found, first_byte_ms=waits)
        if time.monotonic() - self._told_s > 0.9 * EVERY_S:
            self.tell()

    def tell(self) -> None:
        """Tell on what is known."""
        self._told_s = time.monotonic()
        if self._on_counts is not None:
            self._on_counts(LiveCounts.together(self._counts))
        self._counts = [msgspec.structs.replace(counts, first_byte_ms=()) for counts in self._counts]


class _Lost(Exception):
    """A process has ended before its time."""


class _Shard:
    """One client process, from this side."""

    def __init__(self, task: ShardTask) -> None:
        self._task = task
        self._process: asyncio.subprocess.Process | None = None
        self._errors: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115  closed by `end`
        self._lost = ""

    async def get_ready(self) -> None:
        """Start it and wait until its connections are open."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            MODULE,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,  # an interrupt ends the run, which ends them
        )
        try:
            await self._send(Assignment(self._task))
            answer = await self._receive()
        except _Lost as lost:
            raise ChildProcessError(str(lost)) from lost
        if isinstance(answer, Refused):
            raise OSError(answer.message)
        _expect(answer, Ready)

    async def check_clock(self) -> None:
        """Raises `ChildProcessError` when its clock is not ours."""
        asked_ns = time.perf_counter_ns()
        try:
            await self._send(WhatTimeIsIt())
            answer = await self._receive()
        except _Lost as lost:
            raise ChildProcessError(str(lost)) from lost
        heard_ns = time.perf_counter_ns()
        if not isinstance(answer, TimeIs) or not asked_ns <= answer.at_ns <= heard_ns:
            raise ChildProcessError("client processes have no common clock here; use --processes 1")

    async def load(self, start_ns: int, told: _Told) -> None:
        """Wait until it has finished; a process that is lost is remembered."""
        try:
            await self._send(StartAt(start_ns))
            async with asyncio.timeout(self._task.plan.hard_stop_s + _GRACE_S):
                while isinstance(answer := await self._receive(), Progress):
                    told(self._task.shard, answer.counts)
            _expect(answer, Finished)
        except _Lost as lost:
            self._lost = str(lost)
        except TimeoutError:
            self._lost = f"client process {self._task.shard} did not end at the hard stop"

    async def hand_in(self, start_ns: int) -> ShardRecords:
        """Its records; of a process that is lost, failures of all that it was to send."""
        if not self._lost:
            try:
                await self._send(HandIn())
                return _expect(await self._receive(), Records).found
            except _Lost as lost:
                self._lost = str(lost)
        return _lost_records(self._task, start_ns, self._lost)

    async def end(self) -> None:
        """End it, whatever it is doing. Idempotent."""
        process, self._process = self._process, None
        if process is not None:
            if process.returncode is None:
                process.kill()
            await process.communicate()
        self._errors.close()

    async def _send(self, message: ToShard) -> None:
        stdin = self._running().stdin
        assert stdin is not None
        try:
            stdin.write(frame(message))
            await stdin.drain()
        except OSError:
            raise await self._why_lost() from None

    async def _receive(self) -> FromShard:
        stdout = self._running().stdout
        assert stdout is not None
        try:
            length = await stdout.readexactly(LENGTH_BYTES)
            return from_shard(await stdout.readexactly(int.from_bytes(length, "little")))
        except (asyncio.IncompleteReadError, OSError):
            raise await self._why_lost() from None

    async def _why_lost(self) -> _Lost:
        status = await self._running().wait()
        self._errors.seek(0)
        said = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        why = f"status {status}" if status >= 0 else f"signal {-status}"
        last_words = f": {said[-1]}" if said else ""
        return _Lost(f"client process {self._task.shard} ended with {why}{last_words}")

    def _running(self) -> asyncio.subprocess.Process:
        assert self._process is not None
        return self._process


def _lost_records(task: ShardTask, start_ns: int, why: str) -> ShardRecords:
    plan, places = task.plan, task.places or ()
    offsets = plan.loop.offsets_ns if isinstance(plan.loop, OpenLoop) else (0,) * len(plan.requests)
    records = (
        RequestRecord(
            index=place,
            item=request.item,
            shard=task.shard,
            phase=request.phase,
            stream=request.stream,
            scheduled_ns=start_ns + offset,
            failure=Failure.CLIENT_LOST,
            message=why,
            asked_tokens=request.asked_tokens,
        )
        for place, request, offset in zip(places, plan.requests, offsets, strict=True)
    )
    return ShardRecords(tuple(records), (), ())
