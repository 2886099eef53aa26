"""Takes note of every request that has ended, without the request waiting for it.

    record → buffer → (0.1 s) journal on disk → (1 s) database → journal forgotten

Invariant: a row is in exactly one of buffer, journal and database, or in journal and database under one
identity, or counted as lost and logged. A process that is killed loses what it recorded in the last tenth of
a second; a database that is away costs nothing until the journal has reached its bound, and then the oldest
rows first. `record` makes one tuple, and never waits or raises. It belongs to the event loop's thread; files
are touched in a thread of the ledger's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import msgspec

from sluice_gateway.exchange import Exchange
from sluice_gateway.ledger.archive import Archive
from sluice_gateway.ledger.journal import Journal, rows_of
from sluice_gateway.ledger.row import Row, row_of
from sluice_gateway.ledger.settings import LedgerSettings
from sluice_gateway.store.database import Database, StoreError

_log = logging.getLogger("sluice")
_T = TypeVar("_T")

_MAX_BUFFERED_ROWS = 20_000
_STORE_LIMIT_S = 60.0
_LAST_STORE_LIMIT_S = 5.0
_ROWS_AT_ONCE = 500
"""In one transaction, and in memory."""
_DAY_MS = 86_400_000
_FULL = "the buffer is full, since the journal's disk does not keep up"


class Intervals(msgspec.Struct, frozen=True, kw_only=True):
    """How long rows rest on their way, in seconds."""

    journal_s: float = 0.1
    store_s: float = 1.0
    max_backoff_s: float = 30.0
    """Between two tries while the database, or the journal's disk, fails."""
    sweep_s: float = 3600.0


class LedgerSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The ledger's state, for metrics."""

    recorded: int
    stored: int
    """By this process, rows that others left included."""
    lost: int
    """Rows dropped because a bound was reached."""
    journal_bytes: int
    store_failures: int


class Ledger:
    """One process's ledger."""

    def __init__(
        self,
        settings: LedgerSettings,
        database: Database,
        *,
        writer: int,
        wall_clock: Callable[[], float],
        intervals: Intervals | None = None,
    ) -> None:
        """`writer`: 62 random bits that no other run has. `wall_clock` gives seconds since 1970."""
        self._settings = settings
        self._archive = Archive(database)
        self._journal = Journal(Path(settings.journal_folder), writer, settings.max_journal_bytes)
        self._writer = writer
        self._wall_clock = wall_clock
        self._intervals = intervals or Intervals()
        self._buffer: deque[Row] = deque(maxlen=_MAX_BUFFERED_ROWS)
        self._number = 0
        self._overflow = 0
        self._stored = self._lost = self._store_failures = 0
        self._recorded_some = asyncio.Event()
        self._journalled_some = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "sluice-ledger")
        self._tasks: list[asyncio.Task[None]] = []
        self._writing: asyncio.Task[bool] | None = None

    def record(self, exchange: Exchange) -> None:
        """Take note of a request that has ended."""
        buffer = self._buffer
        if not buffer:
            self._recorded_some.set()
        elif len(buffer) == _MAX_BUFFERED_ROWS:
            self._overflow += 1
        self._number = number = self._number + 1
        buffer.append(row_of(exchange, self._writer, number, self._wall_clock()))

    async def start(self) -> None:
        """Open the journal and begin to move rows. Raises `StoreError` when the folder cannot be used."""
        try:
            adopted = await self._in_thread(self._journal.open)
        except OSError as error:
            folder = self._settings.journal_folder
            raise StoreError(
                f"Cannot use ledger.journal_folder {folder}: {error.strerror or error}."
            ) from error
        if adopted:
            _log.info("usage ledger: %d segments of earlier runs wait for the database", adopted)
            self._journalled_some.set()
        self._tasks = [asyncio.create_task(self._keep_journal()), asyncio.create_task(self._keep_storing())]
        if self._settings.retention_days is not None:
            self._tasks.append(asyncio.create_task(self._keep_sweeping(self._settings.retention_days)))

    async def aclose(self) -> None:
        """Bring everything recorded to disk, and to the database if that is quick. Idempotent."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._tasks:
            self._tasks = []
            if self._writing is not None:
                await self._writing
            await self._write_journal()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LAST_STORE_LIMIT_S):
                    await self._store()
            await self._in_thread(self._journal.close)
        self._thread.shutdown()

    def snapshot(self) -> LedgerSnapshot:
        """The state as it is now."""
        return LedgerSnapshot(
            recorded=self._number,
            stored=self._stored,
            lost=self._lost,
            journal_bytes=self._journal.size_bytes,
            store_failures=self._store_failures,
        )

    # From the buffer to the journal.

    async def _keep_journal(self) -> None:
        delay_s = self._intervals.journal_s
        while True:
            await self._recorded_some.wait()
            await asyncio.sleep(delay_s)
            # Not to be cancelled half-way: the rows are in neither place then.
            self._writing = asyncio.create_task(self._write_journal())
            worked = await asyncio.shield(self._writing)
            delay_s = self._intervals.journal_s if worked else self._backoff(delay_s)

    async def _write_journal(self) -> bool:
        """Move the buffer's rows to the journal. False when they had to stay where they are."""
        batch, self._buffer = self._buffer, deque(maxlen=_MAX_BUFFERED_ROWS)
        self._recorded_some.clear()
        overflow, self._overflow = self._overflow, 0
        self._note_loss(overflow, _FULL)
        if not batch:
            return True
        try:
            lost = await self._in_thread(self._append, list(batch))
        except OSError as error:
            _log.error("usage ledger: cannot write the journal, rows wait in memory: %s", error)
            self._put_back(batch)
            return False
        self._journalled_some.set()
        self._note_loss(lost, "the journal has reached ledger.max_journal_bytes")
        return True

    def _append(self, rows: list[Row]) -> int:
        self._journal.append(rows)
        return self._journal.shrink()

    def _put_back(self, batch: deque[Row]) -> None:
        overflow = len(batch) + len(self._buffer) - _MAX_BUFFERED_ROWS
        batch.extend(self._buffer)
        self._buffer = batch
        self._recorded_some.set()
        self._note_loss(max(overflow, 0), _FULL)

    # From the journal to the database.

    async def _keep_storing(self) -> None:
        delay_s = self._intervals.store_s
        while True:
            await self._journalled_some.wait()
            await asyncio.sleep(delay_s)
            worked = await self._store()
            delay_s = self._intervals.store_s if worked else self._backoff(delay_s)

    async def _store(self) -> bool:
        """Move the journal's rows to the database. False when that cannot be reached."""
        self._journalled_some.clear()
        try:
            async with asyncio.timeout(_STORE_LIMIT_S):
                await self._in_thread(self._journal.seal)
                while await self._store_oldest():
                    pass
        except Exception as error:
            await self._note_store_failure(error)
            return False
        return True

    async def _store_oldest(self) -> bool:
        """Store one segment; false when there is none."""
        segment = self._journal.oldest()
        if segment is None:
            return False
        try:
            groups = await self._in_thread(self._journal.read, segment)
        except FileNotFoundError:
            return True  # dropped for the bound in this moment
        stored = 0
        while groups:
            rows = await self._in_thread(_next_rows, groups)
            await self._archive.insert(rows)
            stored += len(rows)
        self._stored += stored
        await self._in_thread(self._forget, segment)
        return True

    def _forget(self, segment: Path) -> None:
        """`shrink` may have been quicker."""
        if self._journal.oldest() == segment:
            self._journal.forget(segment)

    async def _note_store_failure(self, error: Exception) -> None:
        self._store_failures += 1
        self._journalled_some.set()
        lines = str(error).splitlines() or [""]
        _log.warning(
            "usage ledger: cannot store, %d bytes wait in the journal: %s: %s",
            self._journal.size_bytes,
            type(error).__name__,
            lines[0],
        )
        with contextlib.suppress(OSError):
            await self._in_thread(self._journal.sync)

    # Deleting what is old.

    async def _keep_sweeping(self, retention_days: int) -> None:
        while True:
            before_ms = int(self._wall_clock() * 1000) - retention_days * _DAY_MS
            try:
                deleted = await self._archive.delete_before(before_ms)
                if deleted:
                    _log.info("usage ledger: deleted %d rows older than %d days", deleted, retention_days)
            except Exception as error:
                _log.warning("usage ledger: cannot delete old rows: %s", type(error).__name__)
            await asyncio.sleep(self._intervals.sweep_s)

    def _note_loss(self, rows: int, why: str) -> None:
        if rows:
            self._lost += rows
            _log.error("usage ledger: lost the %d oldest rows: %s", rows, why)

    def _backoff(self, delay_s: float) -> float:
        return min(max(delay_s, self._intervals.store_s) * 2, self._intervals.max_backoff_s)

    async def _in_thread(self, function: Callable[..., _T], *arguments: object) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)


def _next_rows(groups: list[bytes]) -> list[Row]:
    """Take the first groups away, as many as go into one transaction, and decode them."""
    rows: list[Row] = []
    while groups and len(rows) < _ROWS_AT_ONCE:
        rows += rows_of(groups.pop(0))
    return rows
