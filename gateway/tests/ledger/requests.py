"""Requests that have ended, for the ledger to take note of."""

from __future__ import annotations

from sluice_gateway.errors import Failure
from sluice_gateway.exchange import Exchange
from sluice_router.types import Usage

NOON = 1_767_268_800.0
"""2026-01-01T12:00:00Z."""


def request(
    request_id: str = "req_1",
    *,
    tenant: str = "acme",
    key: str = "alice",
    model: str = "m",
    backend: str = "worker",
    usage: Usage | None = None,
    cost: float = 0.0,
    failure: Failure | None = None,
) -> Exchange:
    exchange = Exchange(request_id, "chat", "/v1/chat/completions", 0.0)
    exchange.tenant, exchange.key_id, exchange.model, exchange.backend = tenant, key, model, backend
    exchange.usage = usage or Usage(prompt_tokens=10, completion_tokens=5)
    exchange.usage_is_exact = True
    exchange.cost = cost
    exchange.failure = failure
    exchange.status = 200 if failure is None else 502
    exchange.queued_s, exchange.duration_s = 0.001, 0.25
    exchange.attempts = 1
    return exchange
