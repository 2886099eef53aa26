"""Transactions of a SQLAlchemy engine whose driver is asynchronous.

What `sqlalchemy.ext.asyncio` does, for the few calls that are made here: that package loads the ORM too,
seven megabytes in every process that nothing uses. SQLAlchemy's synchronous code runs in a greenlet that is
left while the driver waits. Rows are read to the last before a call returns, so that nothing of a statement
stays open behind it.

Invariant: when a block is left, by an exception or a cancellation too, its transaction has been committed or
rolled back and its connection has gone back to the pool; one that was still being opened goes there when it
is (`Arrivals`). Source of the mechanism: SQLAlchemy's documentation, "Asynchronous I/O", on running
synchronous code with `greenlet_spawn`.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeAlias, TypeVar

from sqlalchemy import Connection, CursorResult, Engine, Executable, Row
from sqlalchemy.util import greenlet_spawn

ACQUIRE_S = 10.0
"""Until a connection is there: a free one that answers, or a new one."""
T = TypeVar("T")
AnyRow: TypeAlias = "Row[*tuple[Any, ...]]"


class Rows:
    """What a statement gave."""

    def __init__(self, result: CursorResult[Any]) -> None:
        """Reads the whole result; to be made inside the greenlet."""
        self._rows: Sequence[AnyRow] = result.all() if result.returns_rows else ()
        self.rowcount = len(self._rows) if result.returns_rows else result.rowcount
        """How many rows it changed, or gave."""

    def __iter__(self) -> Iterator[AnyRow]:
        return iter(self._rows)

    def all(self) -> Sequence[AnyRow]:
        """Every row."""
        return self._rows

    def first(self) -> AnyRow | None:
        """The first row, if any."""
        return self._rows[0] if self._rows else None

    def one(self) -> AnyRow:
        """The only row. Raises `ValueError` when there is none, or more."""
        (row,) = self._rows
        return row


class Transaction:
    """One that has begun. Every call raises what SQLAlchemy raises, and `OSError` or `TimeoutError`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def execute(self, statement: Executable, parameters: Any = None) -> Rows:
        """Run a statement; with a list of parameters, once for each of them."""
        return await self.run_sync(lambda connection: Rows(connection.execute(statement, parameters)))

    async def exec_driver_sql(self, statement: str, parameters: Any = None) -> Rows:
        """Run a statement in the driver's own words."""
        return await self.run_sync(lambda connection: Rows(connection.exec_driver_sql(statement, parameters)))

    async def scalar(self, statement: Executable, parameters: Any = None) -> Any:
        """The first value of the first row; `None` without a row."""
        row = (await self.execute(statement, parameters)).first()
        return None if row is None else row[0]

    async def scalars(self, statement: Executable, parameters: Any = None) -> list[Any]:
        """The first value of every row."""
        return [row[0] for row in await self.execute(statement, parameters)]

    async def run_sync(self, work: Callable[..., T], *arguments: Any) -> T:
        """Have synchronous code, `work(connection, *arguments)`, do several things."""
        return await greenlet_spawn(work, self._connection, *arguments)


class Arrivals:
    """Connections that are being opened.

    Whoever is cancelled meanwhile leaves it to the pool, and does not interrupt it: the driver of SQLite
    opens it in a thread, which would come back to a loop that is gone, and nobody would close it. Only one
    that takes too long is given up.
    """

    def __init__(self) -> None:
        self._unwanted: set[asyncio.Task[None]] = set()

    async def connection(self, engine: Engine) -> Connection:
        """Of the pool, or a new one. Raises `TimeoutError` after `ACQUIRE_S`, and what opening it raises."""
        opening = asyncio.ensure_future(greenlet_spawn(engine.connect))
        try:
            async with asyncio.timeout(ACQUIRE_S):
                return await asyncio.shield(opening)
        except (asyncio.CancelledError, TimeoutError) as error:
            if isinstance(error, TimeoutError):
                opening.cancel()
            task = asyncio.create_task(_put_back(opening))
            self._unwanted.add(task)
            task.add_done_callback(self._unwanted.discard)
            raise

    async def settle(self, limit_s: float) -> None:
        """Wait until none is on its way; after `limit_s` those that are left are given up."""
        if not self._unwanted:
            return
        _, late = await asyncio.wait(self._unwanted, timeout=limit_s)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)


async def _put_back(opening: asyncio.Future[Connection]) -> None:
    with suppress(Exception):  # it could not be opened
        connection = await opening
        await greenlet_spawn(connection.close)


@asynccontextmanager
async def transaction(engine: Engine, arrivals: Arrivals) -> AsyncIterator[Transaction]:
    """Begin one; commit at the block's end, roll back when it raises.

    Raises `TimeoutError` when no connection that answers can be had within `ACQUIRE_S`.
    """
    connection = await arrivals.connection(engine)
    try:
        begun = await greenlet_spawn(connection.begin)
        try:
            yield Transaction(connection)
        except BaseException:
            await greenlet_spawn(begun.__exit__, *sys.exc_info())
            raise
        await greenlet_spawn(begun.__exit__, None, None, None)
    finally:
        await _uninterrupted(greenlet_spawn(connection.close))


async def _uninterrupted(work: Coroutine[Any, Any, None]) -> None:
    """Finish `work` even when cancelled meanwhile; then be cancelled."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
