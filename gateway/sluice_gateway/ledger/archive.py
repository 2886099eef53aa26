"""The ledger's rows in the database: stored exactly once, and deleted when they are old.

Both statements are written for the driver: hundreds of rows go in as one call, without an object a value.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain

from sqlalchemy import delete, select, tuple_

from sluice_gateway.ledger.row import Row
from sluice_gateway.ledger.tables import USAGE
from sluice_gateway.store.database import Database

_NAMES = ", ".join(column.name for column in USAGE.columns)
_PLACES = f"({', '.join('?' * len(USAGE.columns))})"
_CHUNKS = (256, 64, 16, 4, 1)
"""Rows in one SQLite statement. Its module gives Python's lock away and takes it back for every statement: a
statement a row has the event loop fight a thread for it, thousands of times a second. Few sizes, so that few
statements are compiled; the largest keeps under the 32,766 parameters that SQLite takes."""
_SWEEP_ROWS = 2000
_SWEEP_PAUSE_S = 0.05


class Archive:
    """Writes and deletes. Whatever the database raises goes to the caller.

    The schema is brought up to date on first use: the database may have been away when the gateway started.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(self, rows: Sequence[Row]) -> None:
        """Store rows in one transaction. Those that are there already stay as they are."""
        if not rows:
            return
        await self._database.migrate()
        async with self._database.begin() as connection:
            if self._database.is_sqlite:
                for chunk in _chunks(rows):
                    values = tuple(chain.from_iterable(chunk))
                    await connection.exec_driver_sql(_sqlite_insert(len(chunk)), values)
            else:
                columns = tuple(list(column) for column in zip(*rows, strict=True))
                await connection.exec_driver_sql(_postgresql_insert(), columns)

    async def delete_before(self, time_ms: int) -> int:
        """Delete what ended before `time_ms`, in small transactions with pauses. How many rows that were.

        The rows never leave the database, and other writers get their turn in between.
        """
        identity = (USAGE.c.writer, USAGE.c.number)
        old = select(*identity).where(USAGE.c.time_ms < time_ms).limit(_SWEEP_ROWS)
        total = 0
        await self._database.migrate()
        while True:
            async with self._database.begin() as connection:
                result = await connection.execute(delete(USAGE).where(tuple_(*identity).in_(old)))
            total += result.rowcount
            if result.rowcount < _SWEEP_ROWS:
                return total
            await asyncio.sleep(_SWEEP_PAUSE_S)


@cache
def _postgresql_insert() -> str:
    # With all its drivers this is a megabyte, which those who use SQLite do without.
    from sqlalchemy.dialects import postgresql

    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    types = (column.type.compile(dialect) for column in USAGE.columns)
    arrays = ", ".join(f"${index}::{name}[]" for index, name in enumerate(types, start=1))
    return f"INSERT INTO usage ({_NAMES}) SELECT * FROM unnest({arrays}) ON CONFLICT DO NOTHING"


@cache
def _sqlite_insert(rows: int) -> str:
    places = ", ".join([_PLACES] * rows)
    return f"INSERT INTO usage ({_NAMES}) VALUES {places} ON CONFLICT DO NOTHING"


def _chunks(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """The rows in order, in pieces of the sizes of `_CHUNKS`."""
    start = 0
    for size in _CHUNKS:
        while len(rows) - start >= size:
            yield rows[start : start + size]
            start += size
