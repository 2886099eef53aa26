"""One connection to an engine: a socket, at most one exchange on it, flow control both ways.

Everything happens in protocol callbacks: an exchange starts no task and waits on one future at a time. The
request body is pushed from `resume_writing`, so an answer that comes before the request is fully written is
read like any other. Reading stops above `READ_HIGH_WATER` bytes that nobody took, and goes on once they are
taken.

The connection is given back to its owner only when the response ended cleanly, was read to its end, and the
request had been written whole. In every other case it is closed: after an error, a deadline, a cancellation,
a response closed early, or bytes that belong to no exchange.
"""

from __future__ import annotations

import asyncio
from typing import Protocol, cast

from sluice_engines.transport import (
    ConnectionLost,
    DeadlineExceeded,
    Deadlines,
    ProtocolViolation,
    UpstreamError,
)
from sluice_gateway.upstream.deadline_clock import DeadlineClock
from sluice_gateway.upstream.origin import Origin
from sluice_gateway.upstream.response import HttpResponse

READ_HIGH_WATER = 256 * 1024
"""Bytes of body that may wait for their reader; once passed, the socket is left unread."""

WRITE_SLICE = 64 * 1024
"""Bytes of request body handed to the event loop at a time."""


class ConnectionOwner(Protocol):
    """Who keeps account of connections: the pool."""

    def rested(self, connection: Connection) -> None:
        """An exchange ended cleanly; keep the connection or `abort` it."""
        ...

    def closed(self, connection: Connection) -> None:
        """The socket is closed."""
        ...


class Connection(asyncio.Protocol):
    """Made by `create_connection`, which may drop it uncalled when cancelled: its maker tells the owner."""

    __slots__ = (
        "_clock",
        "_loop",
        "_owner",
        "_paused",
        "_response",
        "_transport",
        "_unsent",
        "_writable",
        "origin",
    )

    def __init__(self, owner: ConnectionOwner, origin: Origin) -> None:
        self.origin = origin
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._clock = DeadlineClock(self._loop, self._on_due)
        self._transport: asyncio.Transport | None = None
        self._response: HttpResponse | None = None
        self._unsent: memoryview | None = None
        self._writable = True
        self._paused = False

    # What clients call.

    @property
    def usable(self) -> bool:
        """The socket stands and no exchange runs on it."""
        return self._transport is not None and not self._transport.is_closing() and self._response is None

    def start(
        self, head: bytes, body: bytes, deadlines: Deadlines, started_at: float, *, head_only: bool
    ) -> HttpResponse:
        """Write a request and return its response, whose head is still to come.

        `started_at` is the loop time that the total deadline counts from. Raises `ConnectionLost` when the
        connection is not `usable`.
        """
        if not self.usable:
            raise ConnectionLost("the upstream closed the connection before the request was sent")
        response = HttpResponse(self, self._loop, head_only=head_only)
        self._response = response
        self._clock.start(deadlines, started_at)
        self._write(head, body)
        return response

    def rest(self, life_s: float) -> None:
        """Wait for the next exchange, closing when none came within `life_s` seconds."""
        self._clock.rest(life_s)

    def abort(self) -> None:
        """Close at once, dropping what is unwritten. Idempotent."""
        self._unsent = None
        self._clock.stop()
        self._release_response()
        if self._transport is not None:
            self._transport.abort()

    def fail(self, error: UpstreamError) -> None:
        """End the exchange with `error` and close."""
        if self._response is not None:
            self._response.fail(error)
        self.abort()

    # Writing.

    def _write(self, head: bytes, body: bytes) -> None:
        transport = cast(asyncio.Transport, self._transport)
        if len(body) <= WRITE_SLICE:
            transport.write(head + body)
        else:
            transport.write(head)
            self._unsent = memoryview(body)
            self._push()

    def _push(self) -> None:
        """Hand over slices until the event loop's buffer is full: it then calls `pause_writing`."""
        self._writable = True
        while self._writable and self._unsent is not None:
            rest = self._unsent
            self._unsent = rest[WRITE_SLICE:] if len(rest) > WRITE_SLICE else None
            cast(asyncio.Transport, self._transport).write(rest[:WRITE_SLICE])

    def pause_writing(self) -> None:
        """The event loop's buffer is full: keep the rest of the body."""
        self._writable = False

    def resume_writing(self) -> None:
        """The event loop's buffer has room again."""
        if self._response is not None and not self._response.has_head:
            self._clock.progressed()  # A long upload that moves is not a late first byte.
        self._push()

    # Reading.

    def data_received(self, data: bytes) -> None:
        """Bytes from the engine: the response's, or nobody's."""
        response = self._response
        if response is None or response.complete:
            self.abort()  # Nobody asked for these bytes.
            return
        had_head = response.has_head
        try:
            response.feed(data)
        except ProtocolViolation as error:
            self.fail(error)
            return
        self._after_read(response, had_head)

    def _after_read(self, response: HttpResponse, had_head: bool) -> None:
        if response.complete:
            self._complete(response)
            return
        if had_head:
            self._clock.progressed()
        elif response.has_head:
            self._head_arrived(response)
        if response.buffered > READ_HIGH_WATER:
            self._pause_reading()

    def _head_arrived(self, response: HttpResponse) -> None:
        self._clock.head_arrived()
        if response.status >= 400:
            self._give_up_writing(response)

    def _complete(self, response: HttpResponse) -> None:
        self._clock.suspend()
        self._give_up_writing(response)
        if not response.buffered:
            self._finish(response)

    def _give_up_writing(self, response: HttpResponse) -> None:
        """The answer does not depend on the rest of the request; a cut request ends the connection."""
        if self._unsent is not None:
            self._unsent = None
            response.reusable = False

    def _pause_reading(self) -> None:
        transport = cast(asyncio.Transport, self._transport)
        if not self._paused and not transport.is_closing():
            self._paused = True
            transport.pause_reading()
            self._clock.pause()

    def body_taken(self) -> None:
        """The reader emptied the buffer: read on, or end the exchange."""
        response = self._response
        if response is None:
            return
        if response.complete:
            self._finish(response)
        elif self._paused:
            self._paused = False
            transport = cast(asyncio.Transport, self._transport)
            if not transport.is_closing():
                transport.resume_reading()
                self._clock.resume()

    def _finish(self, response: HttpResponse) -> None:
        """The response was read to its end."""
        transport = cast(asyncio.Transport, self._transport)
        if not response.reusable or transport.is_closing() or transport.get_write_buffer_size():
            self.abort()
            return
        self._release_response()
        self._owner.rested(self)

    def _release_response(self) -> None:
        if self._response is not None:
            self._response.detach()
            self._response = None

    # The event loop's calls, and the clock's.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket stands."""
        self._transport = cast(asyncio.Transport, transport)

    def eof_received(self) -> None:
        """The engine sent all it will; a connection it half closed is of no further use."""
        if self._response is not None:
            self._response.end_of_stream()
        self._clock.stop()
        cast(asyncio.Transport, self._transport).abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed, by whichever side."""
        self._unsent = None
        self._clock.stop()
        if self._response is not None:
            self._response.fail(ConnectionLost(f"the connection to the upstream broke: {exc or 'closed'}"))
            self._release_response()
        self._owner.closed(self)

    def _on_due(self, error: DeadlineExceeded | None) -> None:
        if error is None:
            self.abort()
        else:
            self.fail(error)
