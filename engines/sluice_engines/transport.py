"""How bytes reach an engine: the two-method interface that every upstream client implements.

The gateway's own HTTP client, its httpx twin and the in-process echo engine are all a `Transport`, so the
relay has one code path. This module knows nothing of OpenAI, models or routing.

The resource rule: whoever gets an `UpstreamResponse` must either iterate it to its end or `await aclose()`
it. A response closed early never gives its connection back to a pool.

Errors, all under `UpstreamError`:

    UpstreamError
    ├── ConnectFailed      no connection: nothing was sent, safe to try elsewhere
    ├── ConnectionLost     the peer closed or reset before the answer was complete
    ├── ProtocolViolation  the peer's bytes are not HTTP/1.1, or pass a size limit
    └── DeadlineExceeded   one of `Deadlines` ran out; `.phase` names it
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Literal, Protocol

import msgspec

Phase = Literal["connect", "first_byte", "idle", "total"]


class Deadlines(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of one upstream exchange, seconds. `None` switches one off."""

    connect_s: float | None = 5.0
    """Until the TCP (and TLS) connection stands."""
    first_byte_s: float | None = 120.0
    """From the request being written until the response head. (First *token* is the relay's to watch.)"""
    idle_s: float | None = 60.0
    """Between two reads of the body; not counted while the reader has paused the stream."""
    total_s: float | None = 600.0
    """From the call of `send` to the last byte."""


class UpstreamRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What is sent to an engine. `Host`, `Content-Length` and `Connection` are the transport's to add."""

    base_url: str
    """`http://host:port`, `https://host:port` or `http+unix:///path.sock`."""
    path: str
    """Path and query, starting with `/`."""
    method: str = "POST"
    headers: tuple[tuple[bytes, bytes], ...] = ()
    """Lower-case names."""
    body: bytes = b""


class UpstreamError(Exception):
    """Base of everything a transport raises."""


class ConnectFailed(UpstreamError):
    """No connection could be made; nothing was sent."""


class ConnectionLost(UpstreamError):
    """The peer went away before the answer was complete."""


class ProtocolViolation(UpstreamError):
    """The peer's bytes are not acceptable HTTP/1.1."""


class DeadlineExceeded(UpstreamError):
    """A deadline ran out; `phase` says which."""

    def __init__(self, phase: Phase, limit_s: float) -> None:
        super().__init__(f"upstream {phase} deadline of {limit_s:g} s ran out")
        self.phase: Phase = phase


class UpstreamResponse(Protocol):
    """A response whose head has arrived; the body is read by iterating once."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    """Lower-case names, in the order received."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Body bytes as they arrive (all that is buffered, never waiting for more), framing removed."""
        ...

    async def aclose(self) -> None:
        """Drop the rest. Idempotent; safe after the end; never raises `UpstreamError`."""
        ...


class Transport(Protocol):
    """Sends requests to engines."""

    async def send(self, request: UpstreamRequest, deadlines: Deadlines) -> UpstreamResponse:
        """Send, and return once the response head is there. Raises `UpstreamError`. Cancellation closes."""
        ...

    async def aclose(self) -> None:
        """Close every connection."""
        ...
