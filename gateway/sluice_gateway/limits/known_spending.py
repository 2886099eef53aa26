"""What the ledger knows to be spent, for a limiter that begins: a restart must not make budgets new.

Per key, tenant and model, of the UTC day and month that it is. What an earlier process had not yet written
to the ledger's table is missing.
"""

from __future__ import annotations

from typing import Literal

from sqlalchemy import ColumnElement, case, func, select

from sluice_gateway.ledger.tables import NANO, USAGE
from sluice_gateway.limits.buckets import DAY_US, first_day, month_of
from sluice_gateway.limits.money import MICRO
from sluice_gateway.limits.types import Spent
from sluice_gateway.store.database import Database

_DAY_MS = DAY_US // 1000
_KINDS: dict[Literal["key", "tenant", "model"], ColumnElement[str]] = {
    "key": USAGE.c.key_id,
    "tenant": USAGE.c.tenant,
    "model": USAGE.c.model,
}


async def known_spending(database: Database, now_s: float) -> list[Spent]:
    """Everybody's spending, of those who have spent. Whatever the database raises goes to the caller."""
    day = int(now_s * 1000) // _DAY_MS
    return [found for kind in _KINDS for found in await _spent_by(database, kind, day)]


async def _spent_by(database: Database, kind: Literal["key", "tenant", "model"], day: int) -> list[Spent]:
    column, cost = _KINDS[kind], USAGE.c.cost_nano
    today = func.sum(case((USAGE.c.time_ms >= day * _DAY_MS, cost), else_=0))
    query = (
        select(column, today, func.sum(cost))
        .where(USAGE.c.time_ms >= first_day(month_of(day)) * _DAY_MS)
        .group_by(column)
        .having(func.sum(cost) > 0)
    )
    async with database.read() as connection:
        rows = (await connection.execute(query)).all()
    return [
        Spent(kind=kind, name=name, day=day, on_day=_micro(on_day), in_month=_micro(in_month))
        for name, on_day, in_month in rows
    ]


def _micro(nano: int) -> int:
    """Rounded up."""
    return -(-int(nano) * MICRO // NANO)
