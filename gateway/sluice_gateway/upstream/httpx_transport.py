"""The same interface over httpx: for engines behind a proxy, or TLS that needs httpx's settings.

Costs about thirty times the CPU of `HttpTransport` per request, so it is the alternative, not the default. It
uses httpx's transport layer alone: no redirects, cookies, content decoding or default headers.

Differences from `HttpTransport`: a late upload counts towards no phase but `total`, httpx alone decides which
connections it keeps, and a request cancelled within a TLS handshake closes its socket only when the garbage
collector finds it (httpcore 1.0).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from math import inf
from typing import Any, cast

import httpx

from sluice_engines.transport import (
    ConnectFailed,
    ConnectionLost,
    DeadlineExceeded,
    Deadlines,
    Phase,
    ProtocolViolation,
    UpstreamError,
    UpstreamRequest,
)
from sluice_gateway.upstream.origin import Origin, parse_origin
from sluice_gateway.upstream.request_head import check_request

_UNLIMITED = httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=4.0)
_LOST = ("Server disconnected", "peer closed connection")
"""How h11 words a connection that ended early; it has no class of its own."""


class HttpxTransport:
    """Implements `Transport` with one httpx transport per origin."""

    def __init__(self, *, proxy: str | None = None, ssl_context: ssl.SSLContext | None = None) -> None:
        """`proxy` is an `http://` or `socks5://` URL that every TCP origin is reached through."""
        self._proxy = proxy
        self._ssl_context = ssl_context
        self._transports: dict[Origin, httpx.AsyncHTTPTransport] = {}
        self._closed = False

    async def send(self, request: UpstreamRequest, deadlines: Deadlines) -> HttpxResponse:
        """Send, and return once the response head is there. Errors as `HttpTransport.send`."""
        if self._closed:
            raise ConnectFailed("the gateway's upstream client is closed")
        check_request(request)
        origin = parse_origin(request.base_url)
        watch = _Watch(deadlines)
        try:
            async with watch.until_head() as timer:
                outgoing = _outgoing(request, origin, watch.connect_limit_s(), _phase_switch(watch, timer))
                response = await self._transport(origin).handle_async_request(outgoing)
        except (httpx.TransportError, TimeoutError) as error:
            raise _translated(error, watch) from error
        return HttpxResponse(response, watch)

    async def aclose(self) -> None:
        """Close every connection. Idempotent."""
        self._closed = True
        while self._transports:
            _, transport = self._transports.popitem()
            await transport.aclose()

    def _transport(self, origin: Origin) -> httpx.AsyncHTTPTransport:
        transport = self._transports.get(origin)
        if transport is None:
            transport = self._transports[origin] = httpx.AsyncHTTPTransport(
                verify=self._ssl_context or True,
                limits=_UNLIMITED,
                uds=origin.socket_path,
                proxy=None if origin.socket_path else self._proxy,
                trust_env=False,
            )
        return transport


class HttpxResponse:
    """Implements `UpstreamResponse`."""

    def __init__(self, response: httpx.Response, watch: _Watch) -> None:
        self.status = response.status_code
        self.headers = tuple((name.lower(), value) for name, value in response.headers.raw)
        self._response = response
        self._watch = watch
        self._body = self._read()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._body

    async def aclose(self) -> None:
        """Drop the rest; the connection is closed unless the body was read to its end."""
        await self._body.aclose()
        await self._response.aclose()

    async def _read(self) -> AsyncGenerator[bytes, None]:
        chunks = aiter(cast(httpx.AsyncByteStream, self._response.stream))
        try:
            while True:
                async with self._watch.until_chunk():
                    chunk = await anext(chunks, None)
                if chunk is None:
                    return
                yield chunk
        except (httpx.TransportError, TimeoutError) as error:
            raise _translated(error, self._watch) from error
        finally:
            await self._response.aclose()


class _Watch:
    """Which deadline is next, and which one ran out."""

    def __init__(self, deadlines: Deadlines) -> None:
        self._deadlines = deadlines
        self._loop = asyncio.get_running_loop()
        self._total_at = inf if deadlines.total_s is None else self._loop.time() + deadlines.total_s
        self._phase: Phase = "total"
        self._limit_s = 0.0

    def connect_limit_s(self) -> float | None:
        return self._deadlines.connect_s

    def until_head(self) -> asyncio.Timeout:
        """Connecting has httpx's own limit; `first_byte` is added by `request_written`."""
        return asyncio.timeout_at(self._next("total", None))

    def request_written(self, timer: asyncio.Timeout) -> None:
        timer.reschedule(self._next("first_byte", self._deadlines.first_byte_s))

    def until_chunk(self) -> asyncio.Timeout:
        return asyncio.timeout_at(self._next("idle", self._deadlines.idle_s))

    def verdict(self) -> DeadlineExceeded:
        return DeadlineExceeded(self._phase, self._limit_s)

    def connect_verdict(self) -> DeadlineExceeded:
        return DeadlineExceeded("connect", self._deadlines.connect_s or 0.0)

    def _next(self, phase: Phase, limit_s: float | None) -> float | None:
        phase_at = inf if limit_s is None else self._loop.time() + limit_s
        if phase_at < self._total_at:
            self._phase, self._limit_s = phase, limit_s or 0.0
        else:
            self._phase, self._limit_s = "total", self._deadlines.total_s or 0.0
        due_at = min(phase_at, self._total_at)
        return None if due_at == inf else due_at


def _phase_switch(watch: _Watch, timer: asyncio.Timeout) -> Any:
    """httpcore's trace hook: tells when the request has been written."""

    async def trace(event: str, info: dict[str, Any]) -> None:
        if event == "http11.send_request_body.complete":
            watch.request_written(timer)

    return trace


def _outgoing(request: UpstreamRequest, origin: Origin, connect_s: float | None, trace: Any) -> httpx.Request:
    scheme = "https" if origin.tls else "http"
    return httpx.Request(
        request.method,
        f"{scheme}://{origin.authority}/",
        headers=list(request.headers),
        content=request.body or None,
        extensions={
            "timeout": {"connect": connect_s, "read": None, "write": None, "pool": None},
            "trace": trace,
            "target": request.path.encode("ascii"),  # As given: httpx would normalise it.
        },
    )


def _translated(error: Exception, watch: _Watch) -> UpstreamError | ValueError:
    if isinstance(error, httpx.ConnectTimeout):
        return watch.connect_verdict()
    if isinstance(error, TimeoutError):
        return watch.verdict()
    if isinstance(error, httpx.ConnectError | httpx.ProxyError | httpx.UnsupportedProtocol):
        return ConnectFailed(f"no connection to the upstream: {error}")
    if isinstance(error, httpx.LocalProtocolError):
        return ValueError(f"the request cannot be sent: {error}")
    if isinstance(error, httpx.RemoteProtocolError) and not str(error).startswith(_LOST):
        return ProtocolViolation(f"the upstream's answer is not valid HTTP/1.1: {error}")
    return ConnectionLost(f"the connection to the upstream broke: {error!r}")
