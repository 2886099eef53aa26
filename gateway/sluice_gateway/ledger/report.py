"""Questions to the ledger: sums by any dimensions, and single requests. Reads only.

Pages are bounded, and the database does the adding up: what comes into memory is one page.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import msgspec
from sqlalchemy import ColumnElement, Row, Select, case, func, literal_column, select, tuple_

from sluice_gateway.ledger.period import format_day, format_hour, format_time
from sluice_gateway.ledger.tables import NANO, USAGE
from sluice_gateway.store.database import Database

Dimension = Literal["tenant", "key", "model", "backend", "quant", "kind", "day", "hour"]
DIMENSIONS: tuple[Dimension, ...] = get_args(Dimension)
MAX_PAGE = 1000

_C = USAGE.c
_COLUMNS: Mapping[Dimension, ColumnElement[Any]] = {
    "tenant": _C.tenant,
    "key": _C.key_id,
    "model": _C.model,
    "backend": _C.backend,
    "quant": _C.quant,
    "kind": _C.kind,
    "day": literal_column("(time_ms / 86400000)"),
    "hour": literal_column("(time_ms / 3600000)"),
}
_FORMATS: Mapping[Dimension, Callable[[Any], str]] = {"day": format_day, "hour": format_hour}
_SUMS = (
    func.count().label("requests"),
    func.sum(case((_C.outcome == "ok", 0), else_=1)).label("failed"),
    func.sum(case((_C.cache.in_(("hit", "replayed", "attached")), 1), else_=0)).label("from_cache"),
    func.sum(_C.prompt_tokens).label("prompt_tokens"),
    func.sum(_C.cached_tokens).label("cached_tokens"),
    func.sum(_C.completion_tokens).label("completion_tokens"),
    func.sum(_C.cost_nano).label("cost_nano"),
    func.avg(_C.queue_us).label("queue_us"),
    func.avg(_C.first_token_us).label("first_token_us"),
    func.avg(_C.total_us).label("total_us"),
)


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """Which requests. Names are as in the ledger; `None` means any."""

    since_ms: int
    until_ms: int
    """Up to, not including."""
    tenant: str | None = None
    key: str | None = None
    model: str | None = None
    backend: str | None = None


class UsageSum(msgspec.Struct, frozen=True, kw_only=True):
    """What the requests with the same values of the asked dimensions add up to."""

    group: dict[str, str]
    """The values, by dimension; days and hours in UTC."""
    requests: int
    failed: int
    """Of these, not answered well; clients that left included."""
    from_cache: int
    """Of these, answered with an answer made for an earlier request."""
    prompt_tokens: int
    cached_tokens: int
    """Of the prompt tokens, those from an engine's prefix cache."""
    completion_tokens: int
    cost: float
    queue_ms: float
    """Mean."""
    first_token_ms: float | None
    """Mean over the streams."""
    total_ms: float
    """Mean."""


class UsageSums(msgspec.Struct, frozen=True, kw_only=True):
    """One page."""

    data: list[UsageSum]
    next_offset: int | None
    """Where the next page begins; `None` on the last."""


class UsageRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One request."""

    time: str
    request_id: str
    tenant: str
    key: str
    model: str
    backend: str
    endpoint: str
    quant: str
    kind: str
    status: int
    outcome: str
    cache: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    usage_exact: bool
    cost: float
    queue_ms: float
    first_token_ms: float | None
    total_ms: float
    attempts: int
    stream: bool


class UsageRecords(msgspec.Struct, frozen=True, kw_only=True):
    """One page, newest first."""

    data: list[UsageRecord]
    next_cursor: str | None
    """For `after`; `None` on the last page."""


class CursorError(ValueError):
    """Not a cursor of ours."""


class UsageReport:
    """Answers questions. Whatever the database raises goes to the caller."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def sums(
        self, selection: Selection, by: Sequence[Dimension], *, limit: int = 100, offset: int = 0
    ) -> UsageSums:
        """Sums by dimensions, in their order. No dimension: one sum of all."""
        columns = [_COLUMNS[dimension].label(f"by_{dimension}") for dimension in by]
        query = _narrow(select(*columns, *_SUMS), selection)
        query = query.group_by(*columns).order_by(*columns).having(func.count() > 0)
        await self._database.migrate()
        async with self._database.read() as connection:
            rows = (await connection.execute(query.limit(limit + 1).offset(offset))).all()
        data = [_sum(row, by) for row in rows[:limit]]
        return UsageSums(data=data, next_offset=offset + limit if len(rows) > limit else None)

    async def requests(
        self, selection: Selection, *, limit: int = 100, after: str | None = None
    ) -> UsageRecords:
        """Single requests, newest first. Raises `CursorError`."""
        order = (_C.time_ms, _C.writer, _C.number)
        query = _narrow(select(USAGE), selection).order_by(*(column.desc() for column in order))
        if after is not None:
            query = query.where(tuple_(*order) < tuple_(*_read_cursor(after)))
        await self._database.migrate()
        async with self._database.read() as connection:
            rows = (await connection.execute(query.limit(limit + 1))).all()
        page = rows[:limit]
        cursor = _cursor(page[-1]) if len(rows) > limit else None
        return UsageRecords(data=[_record(row) for row in page], next_cursor=cursor)


def _narrow(query: Select[Any], selection: Selection) -> Select[Any]:
    query = query.where(_C.time_ms >= selection.since_ms, _C.time_ms < selection.until_ms)
    for column, wanted in (
        (_C.tenant, selection.tenant),
        (_C.key_id, selection.key),
        (_C.model, selection.model),
        (_C.backend, selection.backend),
    ):
        if wanted is not None:
            query = query.where(column == wanted)
    return query


def _sum(row: Row[Any], by: Sequence[Dimension]) -> UsageSum:
    values = row._mapping
    group: dict[str, str] = {name: _FORMATS.get(name, str)(values[f"by_{name}"]) for name in by}
    return UsageSum(
        group=group,
        requests=row.requests,
        failed=int(row.failed),
        from_cache=int(row.from_cache),
        prompt_tokens=int(row.prompt_tokens),
        cached_tokens=int(row.cached_tokens),
        completion_tokens=int(row.completion_tokens),
        cost=int(row.cost_nano) / NANO,
        queue_ms=_ms(row.queue_us),
        first_token_ms=None if row.first_token_us is None else _ms(row.first_token_us),
        total_ms=_ms(row.total_us),
    )


def _record(row: Row[Any]) -> UsageRecord:
    return UsageRecord(
        time=format_time(row.time_ms),
        request_id=row.request_id,
        tenant=row.tenant,
        key=row.key_id,
        model=row.model,
        backend=row.backend,
        endpoint=row.endpoint,
        quant=row.quant,
        kind=row.kind,
        status=row.status,
        outcome=row.outcome,
        cache=row.cache,
        prompt_tokens=row.prompt_tokens,
        cached_tokens=row.cached_tokens,
        completion_tokens=row.completion_tokens,
        usage_exact=row.usage_exact,
        cost=row.cost_nano / NANO,
        queue_ms=_ms(row.queue_us),
        first_token_ms=None if row.first_token_us is None else _ms(row.first_token_us),
        total_ms=_ms(row.total_us),
        attempts=row.attempts,
        stream=row.stream,
    )


def _ms(microseconds: Any) -> float:
    return round(float(microseconds) / 1000, 3)


def _cursor(row: Row[Any]) -> str:
    return f"{row.time_ms}-{row.writer:x}-{row.number:x}"


def _read_cursor(text: str) -> tuple[int, int, int]:
    try:
        time_ms, writer, number = text.split("-")
        place = int(time_ms), int(writer, 16), int(number, 16)
    except ValueError:
        raise CursorError("'after' is not a cursor that an earlier page gave.") from None
    if not all(0 <= part < 2**63 for part in place):
        raise CursorError("'after' is not a cursor that an earlier page gave.")
    return place
