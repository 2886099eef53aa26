"""What a client says of where and how urgently its request is to run, in headers.

    X-Backend    name of a backend                       where
    X-Quant      none, awq, int8, int4 or fp8            in which precision
    X-Route      require (the default) or prefer         whether the two above are conditions or wishes
    X-Priority   interactive, default or bulk            who goes first when requests wait
    X-Session-Id anything                                requests with the same one meet on one endpoint
    X-SLO-TTFT-Ms  milliseconds                          to the first token; later it is worth nothing

`x-llm-d-slo-ttft-ms` is another name of the last. Names of values are read without regard to case, except a
backend's. A value that does not exist is an error that names those that do: a typo must not silently serve
from elsewhere. Which of it a key may ask for is not decided here.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from sluice_gateway.errors import Failure, Problem, problem
from sluice_router.types import PRIORITIES, QUANTS

BACKEND = b"x-backend"
QUANT = b"x-quant"
ROUTE = b"x-route"
PRIORITY = b"x-priority"
SESSION = b"x-session-id"
TTFT = b"x-slo-ttft-ms"
TTFT_ALIAS = b"x-llm-d-slo-ttft-ms"
MOST_TTFT_MS = 3_600_000

REQUIRE, PREFER = "require", "prefer"


class RoutingHeaders(msgspec.Struct, frozen=True, kw_only=True):
    """The headers' values, checked."""

    backend: str | None = None
    quant: str | None = None
    prefer: bool = False
    priority: str = "default"
    session: str | None = None
    ttft_budget_s: float | None = None


_NONE = RoutingHeaders()
_NAMES = frozenset({BACKEND, QUANT, ROUTE, PRIORITY, SESSION, TTFT, TTFT_ALIAS})


def parse(headers: dict[bytes, bytes], backends: Collection[str]) -> RoutingHeaders | Problem:
    """What a request's headers ask for. `backends` are the names that exist.

    An empty value counts as none.
    """
    if _NAMES.isdisjoint(headers):
        return _NONE
    backend, quant, route, priority = (_text(headers, name) for name in (BACKEND, QUANT, ROUTE, PRIORITY))
    if backend is not None and backend not in backends:
        text = f"There is no backend '{backend}'; valid ones are: {', '.join(backends)}."
        return problem(Failure.UNKNOWN_BACKEND, text)
    if quant is not None and quant.lower() not in QUANTS:
        text = f"X-Quant '{quant}' is not a quantization; valid ones are: {', '.join(QUANTS)}."
        return problem(Failure.UNKNOWN_QUANT, text)
    if route is not None and route.lower() not in (REQUIRE, PREFER):
        return _unknown("X-Route", route, (REQUIRE, PREFER))
    if priority is not None and priority.lower() not in PRIORITIES:
        return _unknown("X-Priority", priority, PRIORITIES)
    budget = _text(headers, TTFT) or _text(headers, TTFT_ALIAS)
    budget_s = None if budget is None else _budget_s(budget)
    if isinstance(budget_s, Problem):
        return budget_s
    return RoutingHeaders(
        backend=backend,
        quant=quant.lower() if quant is not None else None,
        prefer=route is not None and route.lower() == PREFER,
        priority=priority.lower() if priority is not None else "default",
        session=_text(headers, SESSION),
        ttft_budget_s=budget_s,
    )


def _text(headers: dict[bytes, bytes], name: bytes) -> str | None:
    """A header's value; headers are Latin-1."""
    value = headers.get(name)
    return value.decode("latin-1").strip() or None if value is not None else None


def _budget_s(text: str) -> float | Problem:
    """Milliseconds as seconds."""
    try:
        budget_ms = float(text)
    except ValueError:
        budget_ms = 0.0
    if 0.0 < budget_ms <= MOST_TTFT_MS:
        return budget_ms / 1000.0
    words = (
        f"X-SLO-TTFT-Ms '{text}' is not a time; give milliseconds to the first token, more than 0 and at most"
        f" {MOST_TTFT_MS}, e.g. 2000."
    )
    return problem(Failure.INVALID_REQUEST, words)


def _unknown(header: str, value: str, valid: tuple[str, ...]) -> Problem:
    text = f"{header} '{value}' does not exist; valid values are: {', '.join(valid)}."
    return problem(Failure.INVALID_REQUEST, text)
