"""One request as the ledger keeps it: a tuple in the order of the table's columns.

Every row that leaves here fits the table, on every database, whatever clients and engines said: names are
bounded and have no control characters (PostgreSQL takes no NUL), numbers fit their columns. One row that does
not fit would keep all those behind it from being stored.
"""

from __future__ import annotations

from sluice_gateway.exchange import Exchange
from sluice_gateway.ledger.tables import NANO

Row = tuple[str | int | bool | None, ...]
"""Values in the order of `tables.USAGE.columns`."""

MAX_NAME = 256
"""Characters of a name that are kept."""
_MAX_INTEGER = 2**62
_MAX_MONEY = 4e9


def row_of(exchange: Exchange, writer: int, number: int, time_s: float) -> Row:
    """The row of a request that ended at `time_s`, seconds since 1970."""
    usage, first_token_s = exchange.usage, exchange.first_token_s
    tenant, key_id, model = exchange.tenant, exchange.key_id, exchange.model
    if not (names := tenant + key_id + model).isprintable() or len(names) > MAX_NAME:
        tenant, key_id, model = _plain(tenant), _plain(key_id), _plain(model)
    prompt = cached = completion = 0
    if usage is not None:
        prompt, cached, completion = usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens
        if not (0 <= prompt < _MAX_INTEGER and 0 <= cached < _MAX_INTEGER and 0 <= completion < _MAX_INTEGER):
            prompt, cached, completion = _bounded(prompt), _bounded(cached), _bounded(completion)
    failure, cost = exchange.failure, exchange.cost
    return (
        writer,
        number,
        int(time_s * 1e3),
        exchange.request_id,
        tenant,
        key_id,
        model,
        exchange.backend,
        exchange.endpoint,
        exchange.quant,
        exchange.kind,
        exchange.status,
        "ok" if failure is None else failure.value,
        exchange.cache,
        prompt,
        cached,
        completion,
        exchange.usage_is_exact,
        _nano(cost) if cost else 0,
        int(exchange.queued_s * 1e6),
        None if first_token_s is None else int(first_token_s * 1e6),
        int(exchange.duration_s * 1e6),
        exchange.attempts,
        exchange.stream,
    )


def _plain(name: str) -> str:
    return "".join(c if c.isprintable() else "\ufffd" for c in name[:MAX_NAME])


def _nano(money: float) -> int:
    return round(money * NANO) if 0 < money < _MAX_MONEY else _MAX_INTEGER if money > 0 else 0


def _bounded(number: int) -> int:
    return min(max(number, 0), _MAX_INTEGER)
