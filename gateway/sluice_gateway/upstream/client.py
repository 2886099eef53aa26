"""The gateway's own HTTP/1.1 client: send one request, get one response, keep the connection if it is clean.

It takes `http`, `https` and `http+unix` base URLs. It never queues, never follows redirects, never decodes a
body, and retries in one case only: a kept-alive connection that the engine closed before it sent a single
byte of the answer (the engine's idle timeout crossing our request) is replaced by a fresh one, once.
"""

from __future__ import annotations

import asyncio
import ssl

from sluice_engines.transport import (
    ConnectFailed,
    ConnectionLost,
    DeadlineExceeded,
    Deadlines,
    Phase,
    UpstreamRequest,
)
from sluice_gateway.upstream.connection import Connection
from sluice_gateway.upstream.origin import Origin, parse_origin
from sluice_gateway.upstream.pool import ConnectionPool
from sluice_gateway.upstream.request_head import encode_head
from sluice_gateway.upstream.response import HttpResponse

IDLE_LIFE_S = 4.0
"""Under the five seconds after which uvicorn, and so most engines, close an idle connection."""


class HttpTransport:
    """Implements `Transport`. Bound to the event loop that it is first used in."""

    def __init__(
        self, *, ssl_context: ssl.SSLContext | None = None, idle_life_s: float = IDLE_LIFE_S
    ) -> None:
        """`ssl_context` is for `https` origins; the system's trust store is used when there is none."""
        self._ssl_context = ssl_context
        self._pool = ConnectionPool(idle_life_s)
        self._origins: dict[str, Origin] = {}
        self._closed = False

    @property
    def open_connections(self) -> int:
        """Sockets that stand, idle ones included."""
        return self._pool.open_count

    @property
    def idle_connections(self) -> int:
        """Sockets that wait for a request."""
        return self._pool.idle_count

    async def send(self, request: UpstreamRequest, deadlines: Deadlines) -> HttpResponse:
        """Send, and return once the response head is there.

        Raises `UpstreamError`, and `ValueError` for a request that must not go on the wire (see
        `request_head`). Cancellation closes the connection. After `aclose` every call raises `ConnectFailed`.
        """
        started_at = asyncio.get_running_loop().time()
        origin = self._origin(request.base_url)
        head = encode_head(request, origin.authority)
        kept = self._pool.take(origin)
        if kept is not None:
            response = _start(kept, head, request, deadlines, started_at)
            try:
                await response.wait_head()
                return response
            except ConnectionLost:
                if response.received:
                    raise
        fresh = await self._connect(origin, deadlines, started_at)
        response = _start(fresh, head, request, deadlines, started_at)
        await response.wait_head()
        return response

    async def aclose(self) -> None:
        """Close every connection; exchanges under way end with `ConnectionLost`. Idempotent."""
        self._closed = True
        await self._pool.aclose()

    def _origin(self, base_url: str) -> Origin:
        origin = self._origins.get(base_url)
        if origin is None:
            origin = self._origins[base_url] = parse_origin(base_url)
        return origin

    async def _connect(self, origin: Origin, deadlines: Deadlines, started_at: float) -> Connection:
        self._refuse_when_closed()
        due_at, verdict = _connect_deadline(deadlines, started_at)
        try:
            async with asyncio.timeout_at(due_at) as timer:
                connection = await self._open(origin)
        except (OSError, ValueError) as error:
            if isinstance(error, TimeoutError) and timer.expired():
                raise verdict from error
            raise ConnectFailed(f"no connection to {_describe(origin)}: {error}") from error
        if self._closed or not connection.usable:
            connection.abort()
            self._refuse_when_closed()
            raise ConnectFailed(f"{_describe(origin)} closed the connection at once")
        self._pool.adopt(connection)
        return connection

    async def _open(self, origin: Origin) -> Connection:
        loop = asyncio.get_running_loop()

        def factory() -> Connection:
            return Connection(self._pool, origin)

        if origin.socket_path is not None:
            return (await loop.create_unix_connection(factory, origin.socket_path))[1]
        if origin.tls:
            context = self._tls_context()
            return (await loop.create_connection(factory, origin.host, origin.port, ssl=context))[1]
        return (await loop.create_connection(factory, origin.host, origin.port))[1]

    def _tls_context(self) -> ssl.SSLContext:
        if self._ssl_context is None:
            self._ssl_context = ssl.create_default_context()
            self._ssl_context.set_alpn_protocols(["http/1.1"])
        return self._ssl_context

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise ConnectFailed("the gateway's upstream client is closed")


def _start(
    connection: Connection, head: bytes, request: UpstreamRequest, deadlines: Deadlines, started_at: float
) -> HttpResponse:
    head_only = request.method == "HEAD"
    return connection.start(head, request.body, deadlines, started_at, head_only=head_only)


def _connect_deadline(deadlines: Deadlines, started_at: float) -> tuple[float | None, DeadlineExceeded]:
    """When connecting must be done (loop time), and what to raise if it is not."""
    now = asyncio.get_running_loop().time()
    limits: list[tuple[float, Phase, float]] = []
    if deadlines.connect_s is not None:
        limits.append((now + deadlines.connect_s, "connect", deadlines.connect_s))
    if deadlines.total_s is not None:
        limits.append((started_at + deadlines.total_s, "total", deadlines.total_s))
    if not limits:
        return None, DeadlineExceeded("connect", 0.0)
    due_at, phase, limit_s = min(limits)
    return due_at, DeadlineExceeded(phase, limit_s)


def _describe(origin: Origin) -> str:
    return origin.socket_path or f"{origin.host}:{origin.port}"
