"""One response: parsed as bytes come in, buffered until its reader takes them.

The parser (httptools, hence llhttp in its strict mode) is made anew for every response, so no state of one
answer can leak into the next. What llhttp accepts and we do not: upgrades, transfer codings other than
`chunked`, versions other than 1.0 and 1.1, status codes under 100, more than `MAX_HEAD_BYTES` of headers,
trailers and framing without a byte of content.

A response does not know sockets. Its `link` is told when bytes were taken, and when the reader gave up.

Source: RFC 9112 section 6 (message body length).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Protocol

import httptools

from sluice_engines.transport import ConnectionLost, ProtocolViolation, UpstreamError

MAX_HEAD_BYTES = 64 * 1024
"""Of a response's status line, headers, interim responses and trailers, together."""


Sink = Callable[[bytes], Awaitable[None] | None]
"""Takes a piece of a body; returns what to wait for before the next one, or `None`."""


class ResponseLink(Protocol):
    """What a response needs of the connection that it arrives on."""

    def body_taken(self) -> None:
        """The reader emptied the buffer."""
        ...

    def abort(self) -> None:
        """The reader is not interested any more."""
        ...


class HttpResponse:
    """Implements `UpstreamResponse`; read by one task at a time.

    The parser calls the `on_...` methods, the connection calls `feed`, `end_of_stream` and `fail`.
    """

    status: int
    headers: tuple[tuple[bytes, bytes], ...]

    __slots__ = (
        "_blocked",
        "_chunks",
        "_error",
        "_framed",
        "_head_bytes",
        "_head_only",
        "_lines",
        "_link",
        "_loop",
        "_parser",
        "_silent_bytes",
        "_sink",
        "_sink_error",
        "_waiter",
        "buffered",
        "complete",
        "has_head",
        "headers",
        "received",
        "reusable",
        "status",
    )

    def __init__(self, link: ResponseLink, loop: asyncio.AbstractEventLoop, *, head_only: bool) -> None:
        self.status = 0
        self.headers = ()
        self.received = False
        """Any byte has arrived."""
        self.has_head = False
        self.complete = False
        """The last byte has arrived. Some may still wait in the buffer."""
        self.reusable = False
        """The message ended where its framing said, and the peer keeps the connection open."""
        self.buffered = 0
        """Bytes waiting for the reader."""
        self._link: ResponseLink | None = link
        self._loop = loop
        self._head_only = head_only
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self._lines: list[tuple[bytes, bytes]] = []
        self._chunks: list[bytes] = []
        self._framed = False
        self._head_bytes = 0
        self._silent_bytes = 0
        self._waiter: asyncio.Future[None] | None = None
        self._error: UpstreamError | None = None
        self._sink: Sink | None = None
        self._blocked: Awaitable[None] | None = None
        self._sink_error: Exception | None = None

    # The reader's side.

    async def wait_head(self) -> None:
        """Return once status and headers stand. Raises `UpstreamError`; closes when cancelled."""
        while not self.has_head:
            if self._error is not None:
                raise self._error
            await self._wait()

    def __aiter__(self) -> HttpResponse:
        return self

    async def __anext__(self) -> bytes:
        """All that is buffered, or the next bytes to arrive. Buffered bytes come before an error does."""
        while True:
            if self._chunks:
                return self._take()
            if self._error is not None:
                raise self._error
            if self.complete:
                raise StopAsyncIteration
            await self._wait()

    def take_whole(self) -> bytes | None:
        """The whole body, if all of it is there and none was read; else `None`, and nothing is taken."""
        if not self.complete or self._error is not None:
            return None
        return self._take() if self._chunks else b""

    async def pump(self, sink: Sink) -> None:
        """Give the body to `sink`, piece by piece, from within the socket's own callback; return at its end.

        The same bytes in the same order as by iterating, but without waking a task for each piece. While what
        `sink` returned is waited for, it is not called, and reading stops once enough is buffered. Raises
        what iterating raises, and whatever `sink` raises.
        """
        self._sink = sink
        try:
            while True:
                if self._blocked is not None:
                    await self._blocked
                    self._blocked = None
                elif self._sink_error is not None:
                    raise self._sink_error
                elif self._chunks:
                    self._blocked = sink(self._take())
                elif self._error is not None:
                    raise self._error
                elif self.complete:
                    return
                else:
                    await self._wait()
        finally:
            self._sink = None
            if isinstance(self._blocked, Coroutine):
                self._blocked.close()
            self._blocked = None

    def _push(self, sink: Sink) -> None:
        """Give what arrived to the pump's sink; wake the pump only when it has something to do."""
        if self._chunks and self._blocked is None and self._sink_error is None:
            chunks = self._chunks
            data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            chunks.clear()
            self.buffered = 0
            try:
                self._blocked = sink(data)
            except Exception as error:
                self._sink_error = error
        if self._blocked is not None or self._sink_error is not None or self.complete:
            self._wake()

    async def aclose(self) -> None:
        """Drop the rest and, unless all of it was read, the connection. Idempotent."""
        self._drop()

    def _drop(self) -> None:
        if self._link is not None:
            self._link.abort()
        if self._chunks or not self.complete:
            self._chunks.clear()
            self.buffered = 0
            self._error = self._error or ConnectionLost("the response was closed by its reader")
            self._wake()

    async def _wait(self) -> None:
        if self._waiter is not None:
            raise RuntimeError("two tasks read the same upstream response")
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        except BaseException:
            self._drop()
            raise
        finally:
            self._waiter = None

    def _take(self) -> bytes:
        chunks = self._chunks
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self.buffered = 0
        if self._link is not None:
            self._link.body_taken()
        return data

    # The connection's side.

    def feed(self, data: bytes) -> None:
        """Parse what arrived. Raises `ProtocolViolation`."""
        parser = self._parser
        if parser is None:
            return
        before = (self.has_head, self.buffered)
        self.received = True
        try:
            parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._refuse(error)
        if before == (self.has_head, self.buffered):
            self._silent_bytes += len(data)
            if self._silent_bytes > MAX_HEAD_BYTES and not self.complete:
                raise _too_large()
        else:
            self._silent_bytes = 0
        if self._sink is not None:
            self._push(self._sink)
        elif self.has_head:
            self._wake()

    def end_of_stream(self) -> None:
        """The peer sent all it will: the proper end of an unframed body, a loss in every other state."""
        if self.has_head and not self._framed and not self.complete:
            self.complete = True
            self._wake()
        elif self.has_head:
            self.fail(ConnectionLost("the upstream closed the connection in the middle of its answer"))
        else:
            self.fail(ConnectionLost("the upstream closed the connection without an answer"))

    def fail(self, error: UpstreamError) -> None:
        """End with `error`, unless it already ended."""
        if not self.complete and self._error is None:
            self._error = error
            self._wake()

    def detach(self) -> None:
        """The connection is gone or serves others: break the cycles with it and with the parser."""
        self._link = None
        self._parser = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _refuse(self, error: Exception) -> None:
        if self.complete:
            self.reusable = False  # The answer is whole; what follows it is not ours.
            return
        cause = error.__context__ if isinstance(error, httptools.HttpParserCallbackError) else None
        if isinstance(cause, ProtocolViolation):
            raise cause from None
        raise ProtocolViolation(f"the upstream's answer is not valid HTTP/1.1: {error}") from error

    # The parser's side.

    def on_message_begin(self) -> None:
        """A status line starts: the answer's own, or one after an interim response."""
        if self.complete:
            raise _surplus()

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header line, or one trailer line."""
        self._head_bytes += len(name) + len(value) + 4
        if self._head_bytes > MAX_HEAD_BYTES:
            raise _too_large()
        if self.has_head:
            return  # A trailer: counted, and dropped.
        name = name.lower()
        if name == b"content-length":
            self._framed = True
        elif name == b"transfer-encoding":
            # llhttp takes "chunked" before a tab for another coding, so a tab is not stripped here.
            if self._framed or value.rstrip(b" ").lower() != b"chunked":
                raise ProtocolViolation("the upstream used a transfer coding other than 'chunked'")
            self._framed = True
        self._lines.append((name, value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        """The blank line after the headers."""
        if self.complete or self._parser is None:
            return
        status = self._parser.get_status_code()
        if status < 200:
            self._interim(status)
            return
        if self._parser.get_http_version() not in ("1.1", "1.0"):
            raise ProtocolViolation("the upstream answered in a version other than HTTP/1.1 or 1.0")
        self.status = status
        self.headers = tuple(self._lines)
        self.has_head = True
        if self._head_only:
            # llhttp cannot be told that no body follows, so its state is of no more use:
            # the connection is not reused unless the message ends here for llhttp too.
            self.complete = True

    def _interim(self, status: int) -> None:
        if status < 100 or status == 101 or self._framed:
            raise ProtocolViolation(f"the upstream sent an interim response that is not allowed: {status}")
        self._lines.clear()

    def on_body(self, data: bytes) -> None:
        """Content, without its framing."""
        if self.complete:
            raise _surplus()
        self._chunks.append(data)
        self.buffered += len(data)

    def on_message_complete(self) -> None:
        """The end that the framing announced; also after every interim response."""
        if self.has_head and self._parser is not None:
            self.complete = True
            self.reusable = self._parser.should_keep_alive()


def _surplus() -> ProtocolViolation:
    return ProtocolViolation("the upstream sent bytes after the end of its answer")


def _too_large() -> ProtocolViolation:
    return ProtocolViolation(f"the upstream sent more than {MAX_HEAD_BYTES} bytes of headers or framing")
