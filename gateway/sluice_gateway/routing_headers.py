"""What a client says of where and how urgently its request is to run, in headers.

    X-Backend    name of a backend                       where
    X-Quant      none, awq, int8, int4 or fp8            in which precision
    X-Route      require (the default) or prefer         whether the two above are conditions or wishes
    X-Priority   interactive, default or bulk            who goes first when requests wait
    X-Session-Id anything                                requests with the same one meet on one endpoint

Names of values are read without regard to case, except a backend's. A value that does not exist is an error
that names those that do: a typo must not silently serve from elsewhere. Which of it a key may ask for is not
decided here.
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

REQUIRE, PREFER = "require", "prefer"


class RoutingHeaders(msgspec.Struct, frozen=True, kw_only=True):
    """The headers' values, checked."""

    backend: str | None = None
    quant: str | None = None
    prefer: bool = False
    priority: str = "default"
    session: str | None = None


_NONE = RoutingHeaders()
_NAMES = frozenset({BACKEND, QUANT, ROUTE, PRIORITY, SESSION})


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
    return RoutingHeaders(
        backend=backend,
        quant=quant.lower() if quant is not None else None,
        prefer=route is not None and route.lower() == PREFER,
        priority=priority.lower() if priority is not None else "default",
        session=_text(headers, SESSION),
    )


def _text(headers: dict[bytes, bytes], name: bytes) -> str | None:
    """A header's value; headers are Latin-1."""
    value = headers.get(name)
    return value.decode("latin-1").strip() or None if value is not None else None


def _unknown(header: str, value: str, valid: tuple[str, ...]) -> Problem:
    text = f"{header} '{value}' does not exist; valid values are: {', '.join(valid)}."
    return problem(Failure.INVALID_REQUEST, text)
