"""What one client process does of a run: its share of the requests, and its own calibration.

A run in one process is a single shard in the process that asked for it; `shards.py` starts several.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import msgspec

from sluice_bench.answers import read_answers
from sluice_bench.calibration import probing
from sluice_bench.connection import Exchange
from sluice_bench.engine_load import LoadSample
from sluice_bench.load_run import LoadRun
from sluice_bench.loops import LoadPlan
from sluice_bench.records import RequestRecord
from sluice_bench.runs.live import OnCounts, reporting
from sluice_bench.runs.load_sampling import read_samples, sampling
from sluice_bench.target import Target

Begin = Callable[[], Awaitable[int | None]]
"""Called once connections are open; returns the instant at which to start, `None` for at once."""


Watch = Callable[[LoadRun], Coroutine[None, None, None]]
"""Runs beside a load, of which it sees `exchanges` and may call `stop_sending`; all it does delays the
load."""


class ShardTask(msgspec.Struct, frozen=True, kw_only=True):
    """The work of one process."""

    plan: LoadPlan
    null_server: Target
    shard: int = 0
    places: tuple[int, ...] | None = None
    """Where each request of the plan stands in the whole run; `None`: the plan is the whole run."""
    enough_probes: int
    sampled_server: Target | None = None
    """Whose `/metrics` to ask meanwhile; one process of a run does it."""


class RawShard(msgspec.Struct, frozen=True):
    """What came of it, unread."""

    exchanges: list[Exchange]
    probes: list[Exchange]
    pages: list[Exchange]


class ShardRecords(msgspec.Struct, frozen=True):
    """What came of it."""

    records: tuple[RequestRecord, ...]
    probes: tuple[RequestRecord, ...]
    samples: tuple[LoadSample, ...]


async def carry_out(
    task: ShardTask, begin: Begin, on_counts: OnCounts | None, watch: Watch | None = None
) -> RawShard:
    """Send the requests, with probes and samples beside them. Raises `OSError`: a server is not there."""
    plan = task.plan
    run = LoadRun(plan)
    await run.prepare()
    try:
        start_ns = await begin()
        async with AsyncExitStack() as stack:
            probes = await stack.enter_async_context(
                probing(task.null_server, plan.hard_stop_s, task.enough_probes)
            )
            pages = await stack.enter_async_context(sampling(task.sampled_server, plan.hard_stop_s))
            async with reporting(run, on_counts), watching(run, watch):
                exchanges = await run.run(start_ns)
    finally:
        run.abandon()
    return RawShard(exchanges, _sent(probes), _sent(pages))


@asynccontextmanager
async def watching(run: LoadRun, watch: Watch | None) -> AsyncIterator[None]:
    """`watch` looks at `run` while the block lasts. Raises at its end what `watch` raised."""
    if watch is None:
        yield
        return
    task = asyncio.create_task(watch(run))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def _sent(exchanges: Sequence[Exchange]) -> list[Exchange]:
    """More are planned than a run has time for."""
    return [exchange for exchange in exchanges if exchange.written_ns is not None]


def read_shard(task: ShardTask, raw: RawShard) -> ShardRecords:
    """Parse everything; records get their places in the whole run."""
    return ShardRecords(
        records=tuple(_placed(record, task) for record in read_answers(raw.exchanges)),
        probes=tuple(read_answers(raw.probes)),
        samples=read_samples(raw.pages),
    )


def _placed(record: RequestRecord, task: ShardTask) -> RequestRecord:
    index = record.index if task.places is None else task.places[record.index]
    return msgspec.structs.replace(record, index=index, shard=task.shard)
