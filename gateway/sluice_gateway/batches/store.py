"""Batches in the database: what clients ask of them, and which process works on which.

A batch is worked on by whoever holds its lease. The lease is renewed while the work goes on; a process that
dies stops renewing, and another takes over. Each owner has an `epoch` of its own, and every change that an
owner makes names it: one that lost its lease without noticing changes nothing (`LeaseLostError`).

Leases compare the wall clocks of processes: these may differ by less than a lease lasts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Row, Update, and_, insert, or_, select, update

from sluice_gateway.batches.tables import BATCHES, UNFINISHED, Batch, Status
from sluice_gateway.store.database import Database
from sluice_gateway.store.transaction import Transaction

_ID = re.compile(r"batch_[0-9a-f]{24}")
"""Whatever else a client writes in its place must not reach the database, which cannot read all of it."""


class LeaseLostError(Exception):
    """Somebody else works on the batch now, or its status has changed."""


class BatchPage(msgspec.Struct, frozen=True):
    """A part of a list."""

    batches: Sequence[Batch]
    has_more: bool


class BatchStore:
    """All batches."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def open(self) -> None:
        """Have the tables. Raises `StoreError`; free once it has succeeded."""
        await self._database.migrate()

    def begin(self) -> AbstractAsyncContextManager[Transaction]:
        """A transaction in which other things change together with a batch."""
        return self._database.begin()

    async def add(self, batch: Batch) -> None:
        """Have a batch exist."""
        async with self._database.begin() as connection:
            await connection.execute(insert(BATCHES).values(msgspec.structs.asdict(batch)))

    async def get(self, batch_id: str, tenant: str | None = None) -> Batch | None:
        """One batch; with `tenant`, only if it is theirs."""
        if not _ID.fullmatch(batch_id):
            return None
        wanted = [BATCHES.c.id == batch_id]
        if tenant is not None:
            wanted.append(BATCHES.c.tenant == tenant)
        async with self._database.read() as connection:
            row = (await connection.execute(select(BATCHES).where(*wanted))).first()
        return None if row is None else _batch(row)

    async def page(self, tenant: str, *, after: Batch | None, limit: int) -> BatchPage:
        """A tenant's batches, the newest first, from the one that follows `after`."""
        made, name = BATCHES.c.created_us, BATCHES.c.id
        wanted = [BATCHES.c.tenant == tenant]
        if after is not None:
            at = after.created_us
            wanted.append(or_(made < at, and_(made == at, name < after.id)))
        query = select(BATCHES).where(*wanted).order_by(made.desc(), name.desc()).limit(limit + 1)
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        return BatchPage([_batch(row) for row in rows[:limit]], len(rows) > limit)

    async def cancel(self, batch_id: str, now: int) -> None:
        """Ask whoever works on a batch to stop. Nothing happens to one that is at its end, or nearly."""
        cancellable = BATCHES.c.status.in_(("validating", "in_progress"))
        change = (
            update(BATCHES)
            .where(BATCHES.c.id == batch_id, cancellable)
            .values(status="cancelling", cancelling_at=now)
        )
        async with self._database.begin() as connection:
            await connection.execute(change)

    # Working on them

    async def claim(self, owner: str, now: float, lease_s: float) -> Batch | None:
        """Take the oldest batch that nobody works on; `None` when there is none."""
        free = and_(BATCHES.c.status.in_(UNFINISHED), BATCHES.c.lease_until <= now)
        oldest = select(BATCHES.c.id).where(free).order_by(BATCHES.c.created_us).limit(1)
        async with self._database.read() as connection:
            batch_id = await connection.scalar(oldest)
        if batch_id is None:
            return None
        take = (
            update(BATCHES)
            .where(BATCHES.c.id == batch_id, free)
            .values(lease_owner=owner, lease_until=now + lease_s, epoch=BATCHES.c.epoch + 1)
        )
        async with self._database.begin() as connection:
            if not (await connection.execute(take)).rowcount:
                return None
            row = (await connection.execute(select(BATCHES).where(BATCHES.c.id == batch_id))).one()
        return _batch(row)

    async def renew(self, batch: Batch, until: float, completed: int, failed: int) -> Status:
        """Keep a batch, and say how far it is. Raises `LeaseLostError`."""
        keep = update(BATCHES).where(_is_ours(batch))
        async with self._database.begin() as connection:
            await _change_one(connection, keep.values(lease_until=until, completed=completed, failed=failed))
            status: Status = await connection.scalar(select(BATCHES.c.status).where(BATCHES.c.id == batch.id))
        return status

    async def advance(self, batch: Batch, connection: Transaction | None = None, **changes: Any) -> Batch:
        """Change a batch that still has the status it had. Raises `LeaseLostError` when it has not."""
        change = update(BATCHES).where(_is_ours(batch), BATCHES.c.status == batch.status).values(changes)
        if connection is not None:
            await _change_one(connection, change)
        else:
            async with self._database.begin() as own:
                await _change_one(own, change)
        return msgspec.structs.replace(batch, **changes)

    async def release(self, batch: Batch) -> None:
        """Let others have a batch at once."""
        give = update(BATCHES).where(_is_ours(batch)).values(lease_owner=None, lease_until=0.0)
        async with self._database.begin() as connection:
            await connection.execute(give)

    async def finished(self, batch_ids: Sequence[str]) -> list[str]:
        """Those of them that nobody has to work on any more, or that do not exist."""
        busy = select(BATCHES.c.id).where(BATCHES.c.id.in_(batch_ids), BATCHES.c.status.in_(UNFINISHED))
        async with self._database.read() as connection:
            unfinished = {*await connection.scalars(busy)}
        return [batch_id for batch_id in batch_ids if batch_id not in unfinished]


def _is_ours(batch: Batch) -> ColumnElement[bool]:
    return and_(BATCHES.c.id == batch.id, BATCHES.c.epoch == batch.epoch)


async def _change_one(connection: Transaction, change: Update) -> None:
    if not (await connection.execute(change)).rowcount:
        raise LeaseLostError


def _batch(row: Row[Any]) -> Batch:
    return Batch(**row._mapping)
