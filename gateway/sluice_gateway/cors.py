"""Which web pages may read answers: the few headers of the CORS protocol, without a middleware.

API keys travel in headers that scripts set themselves, so credentials mode stays off, and an origin gets
exactly what was configured. A request without an `Origin` header pays one look-up. Source: the Fetch
standard, "CORS protocol".
"""

from __future__ import annotations

from collections.abc import Iterable

from sluice_gateway.response import EXPOSED
from sluice_gateway.wire import Header

_EXPOSE: Header = (b"access-control-expose-headers", ", ".join(EXPOSED).encode())
_METHODS: Header = (b"access-control-allow-methods", b"GET, POST, PATCH, DELETE, OPTIONS")
_MAX_AGE: Header = (b"access-control-max-age", b"600")
_VARY: Header = (b"vary", b"origin")


class CorsPolicy:
    """The configured origins."""

    def __init__(self, allow_origins: Iterable[str]) -> None:
        """`*` among them allows every origin."""
        self._origins = frozenset(origin.rstrip("/").encode() for origin in allow_origins)
        self._all = b"*" in self._origins

    def headers(self, request: dict[bytes, bytes]) -> list[Header]:
        """What to add to the answer to a request with these headers."""
        origin = request.get(b"origin")
        if origin is None or not (self._all or origin in self._origins):
            return []
        allowed = b"*" if self._all else origin
        return [(b"access-control-allow-origin", allowed), _EXPOSE, _VARY]

    def is_preflight(self, request: dict[bytes, bytes]) -> bool:
        """Whether a browser asks for leave before its real request."""
        return b"origin" in request and b"access-control-request-method" in request

    def preflight(self, request: dict[bytes, bytes]) -> tuple[Header, ...]:
        """The leave to give, `headers` aside. Request headers are allowed as asked: SDKs send many of their
        own."""
        asked = request.get(b"access-control-request-headers")
        allowed = ((b"access-control-allow-headers", asked),) if asked else ()
        return (_METHODS, _MAX_AGE, *allowed)
