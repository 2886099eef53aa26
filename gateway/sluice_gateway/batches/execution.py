"""One batch, from the moment a process has taken it to its end, or until the process has to let it go.

    validating → in_progress → finalizing → completed, expired, failed (the key is gone)
         └→ failed      └→ cancelling → cancelled

Every step can be begun again: what was achieved is in the progress log, and the results appear together with
the final status. So wherever a process dies, the next one goes on from there. A status that a client changes
meanwhile makes the next step fail as if the lease were lost, and the batch is taken anew.

An answer that says "not now" (429, 503) is asked for again for as long as the batch may take; one that speaks
of a broken engine (502, 504) a few times. All else is the request's result.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import msgspec

from sluice_gateway.batches import input_file, progress, results
from sluice_gateway.batches.finalization import Ending, Source, encode_errors, finalize, new_request_id
from sluice_gateway.batches.holders import holder_of
from sluice_gateway.batches.input_file import LineRequest
from sluice_gateway.batches.progress import ProgressLog, Record
from sluice_gateway.batches.retry import delay_s
from sluice_gateway.batches.runner_types import CollectedAnswer, FindKey, Runner
from sluice_gateway.batches.store import BatchStore
from sluice_gateway.batches.tables import Batch
from sluice_gateway.errors import internal
from sluice_gateway.files.service import FileService
from sluice_gateway.identity import Key
from sluice_gateway.routes import DATA_PLANE
from sluice_gateway.store.database import UNAVAILABLE
from sluice_gateway.threads import in_thread

_log = logging.getLogger("sluice")

_BEATS = 3
"""How often a lease is renewed within its length."""
_GRACE_S = 60.0
"""How long requests that are under way may go on once their batch is cancelled: they are paid for."""


@dataclass(frozen=True)
class Means:
    """What all batches of a process are run with."""

    store: BatchStore
    files: FileService
    folder: Path
    """For progress logs."""
    run: Runner
    find_key: FindKey
    slots: asyncio.Semaphore
    """Requests that may run at once, over all batches."""
    concurrency: int
    """Requests of one batch that may run, or wait for their turn, at once."""
    max_line_bytes: int
    lease_s: float
    wall_clock: Callable[[], float]
    """Seconds since 1970."""


class Execution:
    """One batch in the hands of this process."""

    def __init__(self, means: Means, batch: Batch) -> None:
        self._means = means
        self.batch = batch
        self._progress = ProgressLog(means.folder, batch.id, batch.epoch)
        self._beat = asyncio.Event()
        self._stopping = asyncio.Event()
        self._ending: Ending | None = None
        self._lease_until = batch.lease_until

    def look(self) -> None:
        """A client has changed the batch: look at once."""
        self._beat.set()

    async def run(self) -> None:
        """Work until the batch is at its end.

        Raises `LeaseLostError` when it is somebody else's now, and whatever database and disk raise: then it
        has to be taken again later.
        """
        heart = asyncio.create_task(self._keep_lease())
        work = asyncio.create_task(self._work())
        try:
            await asyncio.wait({heart, work}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                heart.result()
            work.result()
        finally:
            await _end(heart, work)
            await self._progress.aclose()

    # Keeping it

    async def _keep_lease(self) -> None:
        """Renew, count, and notice what ends the batch early. The store may be away while the lease lasts."""
        means = self._means
        while True:
            try:
                await self._renew()
            except UNAVAILABLE:
                if means.wall_clock() >= self._lease_until:
                    raise
            self._look_for_an_end()
            with suppress(TimeoutError):
                async with asyncio.timeout(means.lease_s / _BEATS):
                    await self._beat.wait()
            self._beat.clear()

    async def _renew(self) -> None:
        done, until = self._progress, self._means.wall_clock() + self._means.lease_s
        completed = len(done.done) - done.failed
        status = await self._means.store.renew(self.batch, until, completed, done.failed)
        self._lease_until = until
        if status == "cancelling":
            self.batch = msgspec.structs.replace(self.batch, status=status)
            self._stop(Ending.CANCELLED)

    def _look_for_an_end(self) -> Key | None:
        """The key to run requests with, if any may still be run."""
        if self._means.wall_clock() >= self.batch.expires_at:
            self._stop(Ending.EXPIRED)
        key = holder_of(self.batch, self._means.find_key)
        if key is None:
            self._stop(Ending.KEY_REVOKED)
        return None if self._stopping.is_set() else key

    def _stop(self, ending: Ending) -> None:
        """Run nothing more. The first reason counts."""
        self._ending = self._ending or ending
        self._stopping.set()

    # Working on it

    async def _work(self) -> None:
        await self._progress.open()
        path = await self._input_path()
        if self.batch.status == "validating" and path is not None and not await self._validate(path):
            return
        if path is None:
            self._stop(Ending.INPUT_MISSING)
        elif self.batch.status in ("in_progress", "finalizing"):
            await self._process(path)
        if self.batch.status == "in_progress":
            now = int(self._means.wall_clock())
            self.batch = await self._means.store.advance(self.batch, status="finalizing", finalizing_at=now)
        await self._finalize(path)

    async def _input_path(self) -> Path | None:
        file = await self._means.files.get(self.batch.input_file_id, self.batch.tenant)
        return None if file is None else self._means.files.path(file)

    async def _validate(self, path: Path) -> bool:
        """Whether the batch can be run."""
        means, batch = self._means, self.batch
        checked = await in_thread(input_file.check, path, batch.endpoint, means.max_line_bytes)
        now = int(means.wall_clock())
        if checked.errors:
            errors = encode_errors(checked.errors)
            await means.store.advance(batch, status="failed", failed_at=now, errors=errors)
            await in_thread(progress.remove, means.folder, batch.id)
            return False
        self.batch = await means.store.advance(
            batch, status="in_progress", in_progress_at=now, total=checked.total, model=checked.model
        )
        return True

    async def _finalize(self, path: Path | None) -> None:
        means, batch = self._means, self.batch
        ending = self._ending or Ending.COMPLETED
        if batch.status == "cancelling":
            ending = Ending.CANCELLED
        elif batch.total and len(self._progress.done) >= batch.total:
            ending = Ending.COMPLETED
        # A batch that was cancelled before it was looked at has lines that nobody can vouch for.
        source = Source(path if batch.total else None, means.max_line_bytes)
        now = int(means.wall_clock())
        await finalize(means.store, means.files, batch, self._progress, source, ending, now)
        await in_thread(progress.remove, means.folder, batch.id)

    # Its requests

    async def _process(self, path: Path) -> None:
        """Run what has no result yet, as long as it may."""
        lines = input_file.requests(path, self._means.max_line_bytes)
        turn = asyncio.Lock()
        workers: list[asyncio.Task[Any]] = [
            asyncio.create_task(self._run_requests(lines, turn)) for _ in range(self._means.concurrency)
        ]
        stopping: asyncio.Task[Any] = asyncio.create_task(self._stopping.wait())
        ended: asyncio.Future[Any] = asyncio.gather(*workers)
        try:
            await asyncio.wait([ended, stopping], return_when=asyncio.FIRST_COMPLETED)
            if not ended.done() and self._ending is Ending.CANCELLED:
                await asyncio.wait({ended}, timeout=_GRACE_S)
            if ended.done():
                ended.result()
        finally:
            await _end(stopping, *workers)
            await asyncio.gather(ended, return_exceptions=True)

    async def _run_requests(self, lines: Iterator[LineRequest], turn: asyncio.Lock) -> None:
        """One of those who share the work."""
        while not self._stopping.is_set():
            async with turn:
                request = await in_thread(self._next, lines)
            if request is None:
                return
            result = await self._result(request)
            if result is not None:
                await self._progress.append(result)

    def _next(self, lines: Iterator[LineRequest]) -> LineRequest | None:
        return next((line for line in lines if line.index not in self._progress.done), None)

    async def _result(self, request: LineRequest) -> Record | None:
        """How a request ended; `None` when the batch is to end first."""
        for attempt in count(1):
            request_id = new_request_id()
            async with self._means.slots:
                key = self._look_for_an_end()
                if key is None:
                    return None
                answer = await self._ask(request, key, request_id)
            wait_s = delay_s(answer, attempt)
            if wait_s is None:
                return results.answered(request.index, request.custom_id, request_id, answer)
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._stopping.wait()
        return None

    async def _ask(self, request: LineRequest, key: Key, request_id: str) -> CollectedAnswer:
        route = DATA_PLANE[self.batch.endpoint]
        try:
            return await self._means.run(
                route.kind, route.path, request.body, key, request_id=request_id, priority="bulk"
            )
        except Exception:
            _log.exception("request %s of batch %s failed inside the gateway", request_id, self.batch.id)
            return CollectedAnswer(status=500, body=internal(request_id).body())


async def _end(*tasks: asyncio.Task[Any]) -> None:
    """Cancel, and wait until nothing is left of them."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
