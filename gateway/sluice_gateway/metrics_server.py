"""A port for `/metrics` alone: a few lines of HTTP/1.1, since a supervisor should not carry a web framework.

One request a connection, its head bounded in bytes and time. Anything but GET or HEAD on `/metrics` is a 404.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from sluice_gateway.config import ConfigError
from sluice_gateway.metrics_names import CONTENT_TYPE
from sluice_gateway.settings import Server

_HEAD_BYTES = 8192
_HEAD_S = 5.0


class MetricsServer:
    """Open between `start` and `aclose`, if the configuration wants it at all."""

    def __init__(self, page: Callable[[], Awaitable[bytes]]) -> None:
        self._page = page
        self._server: asyncio.Server | None = None

    async def start(self, settings: Server) -> None:
        """Listen on `server.metrics_port`. Raises `ConfigError` when that is not possible."""
        port = settings.metrics_port
        if port is None:
            return
        try:
            self._server = await asyncio.start_server(self._serve, settings.host, port, limit=_HEAD_BYTES)
        except OSError as error:
            raise ConfigError(f"Cannot listen on server.metrics_port {port}: {error.strerror}.") from error

    async def aclose(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError, asyncio.LimitOverrunError):
            async with asyncio.timeout(_HEAD_S):
                head = await reader.readuntil(b"\r\n\r\n")
            writer.write(await self._answer(head))
            await writer.drain()
        writer.close()

    async def _answer(self, head: bytes) -> bytes:
        method, _, rest = head.partition(b" ")
        target = rest.partition(b" ")[0].partition(b"?")[0]
        if target != b"/metrics" or method not in (b"GET", b"HEAD"):
            return _response("404 Not Found", b"Only /metrics is here.\n", "text/plain")
        page = await self._page()
        whole = _response("200 OK", page, CONTENT_TYPE)
        return whole[: -len(page)] if method == b"HEAD" else whole


def _response(status: str, body: bytes, content_type: str) -> bytes:
    head = f"HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n"
    return head.encode() + b"connection: close\r\n\r\n" + body
