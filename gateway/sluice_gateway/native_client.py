"""A client on a connection of our own: `Source` and `Wire` straight on the socket.

Nothing waits in a task of its own: the connection's callbacks say when the body is there, when the client has
left, and when it stops reading. An answer's head leaves together with the first piece of its body, a whole
answer in one write.

The connection (`http_protocol.py`) feeds the request's body in and calls `lost`, `pause` and `resume`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from sluice_gateway import body
from sluice_gateway.errors import Failure, Problem
from sluice_gateway.interruption import Interruption
from sluice_gateway.wire import Header

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_LAST_CHUNK = b"0\r\n\r\n"


class NativeClient:
    """One request of one connection, and its answer.

    `response_complete` and `keep_alive` are what uvicorn looks at when it shuts a connection down.
    """

    __slots__ = (
        "_body_complete",
        "_body_size",
        "_chunked",
        "_default_headers",
        "_drained",
        "_expects_continue",
        "_gone",
        "_head",
        "_headers",
        "_interruption",
        "_limit",
        "_loop",
        "_on_complete",
        "_parts",
        "_stall_timer",
        "_transport",
        "_unread_bytes",
        "_waiter",
        "_write_timeout_s",
        "keep_alive",
        "response_complete",
    )

    def __init__(
        self,
        transport: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        headers: dict[bytes, bytes],
        *,
        keep_alive: bool,
        chunked: bool,
        default_headers: list[Header],
        body_limit: int,
        write_timeout_s: float,
        on_complete: Callable[[], None],
    ) -> None:
        """`chunked`: the client knows chunked coding (HTTP/1.1). `on_complete` is called after the answer."""
        self._transport = transport
        self._loop = loop
        self._headers = headers
        self.keep_alive = keep_alive
        self.response_complete = False
        self._chunked = chunked
        self._default_headers = default_headers
        self._limit = body_limit
        self._write_timeout_s = write_timeout_s
        self._on_complete = on_complete
        self._parts: list[bytes] = []
        self._body_size = 0
        self._body_complete = False
        self._expects_continue = headers.get(b"expect", b"").lower() == b"100-continue"
        self._gone = False
        self._head = b""
        self._waiter: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._interruption: Interruption | None = None
        self._stall_timer: asyncio.TimerHandle | None = None
        self._unread_bytes = 0

    # The connection's side.

    def feed(self, data: bytes) -> None:
        """A piece of the request's body. What comes after the answer, or over the limit, is dropped."""
        if self.response_complete:
            return
        self._body_size += len(data)
        if self._body_size > self._limit:
            self._parts.clear()
            self._wake()
        else:
            self._parts.append(data)

    def end_of_body(self) -> None:
        """The request is complete."""
        self._body_complete = True
        self._wake()

    def lost(self) -> None:
        """The connection is closed."""
        self._gone = True
        self._wake()
        self.resume()
        if self._interruption is not None:
            self._interruption.interrupt(Failure.CLIENT_GONE)

    def pause(self) -> None:
        """The client reads more slowly than we write."""
        if self._drained is None:
            self._drained = self._loop.create_future()
            self._unread_bytes = self._transport.get_write_buffer_size()
            self._stall_timer = self._loop.call_later(self._write_timeout_s, self._check_stall)

    def resume(self) -> None:
        """The client caught up, or will never."""
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)

    def cut(self) -> None:
        """The answer will not be finished: close, so that the client sees it is not whole."""
        if not self.response_complete:
            self.response_complete = True
            self.resume()
            self._transport.close()

    # `Source`.

    async def read(self, limit: int, timeout_s: float) -> bytes | Problem:
        """See `Source`."""
        refusal = body.refusal(self._headers, limit)
        if refusal is not None:
            return refusal
        if not self._body_complete and not self._gone:
            if self._expects_continue:
                self._transport.write(_CONTINUE)
            try:
                async with asyncio.timeout(timeout_s):
                    await self._wait_for_body()
            except TimeoutError:
                return body.too_slow(timeout_s)
        if self._body_size > limit:
            return body.too_large(limit)
        if not self._body_complete:
            return body.GONE
        parts, self._parts = self._parts, []
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def watch(self, interruption: Interruption) -> None:
        """See `Source`."""
        self._interruption = interruption
        if self._gone:
            interruption.interrupt(Failure.CLIENT_GONE)

    def unwatch(self) -> None:
        """See `Source`."""
        self._interruption = None

    async def _wait_for_body(self) -> None:
        while not (self._body_complete or self._gone or self._body_size > self._limit):
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # `Wire`.

    def start(self, status: int, headers: list[Header]) -> None:
        """See `Wire`. Leaves with the first piece of the body."""
        lines = self._lines(status, headers)
        if self._chunked:
            lines.append(b"transfer-encoding: chunked\r\n")
        else:
            self.keep_alive = False
        self._head = self._encode(lines)

    def write(self, data: bytes) -> Awaitable[None] | None:
        """See `Wire`."""
        if self._gone:
            return None
        if self._chunked:
            data = b"%b%x\r\n%b\r\n" % (self._head, len(data), data)
        elif self._head:
            data = self._head + data
        self._head = b""
        self._transport.write(data)
        return self._drained

    def finish(self, data: bytes = b"") -> None:
        """See `Wire`."""
        if not self._gone:
            if self._chunked:
                last = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
                data = b"%b%b%b" % (self._head, last, _LAST_CHUNK)
            else:
                data = self._head + data
            if data:
                self._transport.write(data)
        self._complete()

    def whole(self, status: int, headers: list[Header], body: bytes) -> None:
        """See `Wire`."""
        if not self._gone:
            lines = self._lines(status, headers)
            lines.append(b"content-length: %d\r\n" % len(body))
            self._transport.write(self._encode(lines) + body)
        self._complete()

    def _lines(self, status: int, headers: list[Header]) -> list[bytes]:
        lines = [STATUS_LINE[status]]
        lines += [b"%b: %b\r\n" % header for header in self._default_headers]
        lines += [b"%b: %b\r\n" % header for header in headers]
        return lines

    def _encode(self, lines: list[bytes]) -> bytes:
        if not self.keep_alive:
            lines.append(b"connection: close\r\n")
        lines.append(b"\r\n")
        return b"".join(lines)

    def _complete(self) -> None:
        self.response_complete = True
        self._interruption = None
        if not self.keep_alive:
            self._transport.close()
        self._on_complete()

    def _check_stall(self) -> None:
        """A slow reader is no stalled one: it is cut off when it took nothing in a whole interval."""
        unread_bytes = self._transport.get_write_buffer_size()
        if unread_bytes < self._unread_bytes:
            self._unread_bytes = unread_bytes
            self._stall_timer = self._loop.call_later(self._write_timeout_s, self._check_stall)
        else:
            self._transport.abort()
            if self._interruption is not None:
                self._interruption.interrupt(Failure.CLIENT_STALLED)
