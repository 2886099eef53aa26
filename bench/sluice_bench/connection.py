"""The hot path of the load client: one connection, one exchange at a time, stamps and bytes.

While a load runs nothing is done here but to record `(ns, bytes)` of each read and to look for the end of the
response. HTTP, SSE, JSON and tokens are read from the record after the run (`answers.py`). A request is sent
once: a kept-alive connection that the server closes under a request is a failure.

Knows nothing of what a request means, nor of schedules; whoever opens connections is a `ConnectionOwner`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, cast

from sluice_bench.http_wire import HttpWireError, ResponseEnd
from sluice_bench.records import Failure
from sluice_bench.target import WireRequest


class Exchange:
    """One request's raw record; filled in as it goes."""

    __slots__ = (
        "closed",
        "connected_ns",
        "connection",
        "detail",
        "dispatched_ns",
        "end_ns",
        "failure",
        "index",
        "reads",
        "request",
        "reused",
        "scheduled_ns",
        "written_ns",
    )

    def __init__(self, index: int, request: WireRequest, scheduled_ns: int) -> None:
        self.index = index
        self.request = request
        self.scheduled_ns = scheduled_ns
        self.dispatched_ns: int | None = None
        self.connected_ns: int | None = None
        self.written_ns: int | None = None
        self.end_ns: int | None = None
        self.reads: list[tuple[int, bytes]] = []
        """(time stamp, bytes) of every read."""
        self.failure: Failure | None = None
        self.detail = ""
        self.closed = False
        """The peer ended the connection after the last read."""
        self.reused = False
        self.connection: Connection | None = None


class ConnectionOwner(Protocol):
    """Who opens connections and is told what becomes of them."""

    clock_ns: Callable[[], int]

    def finish(
        self,
        exchange: Exchange,
        now: int,
        failure: Failure | None,
        detail: str,
        connection: Connection | None,
    ) -> None:
        """An exchange has ended."""

    def drop(self, connection: Connection) -> None:
        """A connection is gone."""


class Connection(asyncio.Protocol):
    """One connection carrying one exchange at a time."""

    def __init__(self, run: ConnectionOwner) -> None:
        self._run = run
        self._clock_ns = run.clock_ns
        self._transport: asyncio.Transport | None = None
        self._exchange: Exchange | None = None
        self._end = ResponseEnd()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)

    @property
    def usable(self) -> bool:
        """Open, and carrying nothing."""
        return self._transport is not None and not self._transport.is_closing() and self._exchange is None

    def start(self, exchange: Exchange) -> None:
        """Send a request. The connection must be usable."""
        assert self._transport is not None
        self._exchange = exchange
        self._end = ResponseEnd()
        exchange.connection = self
        exchange.written_ns = self._clock_ns()
        self._transport.write(exchange.request.wire)

    def data_received(self, data: bytes) -> None:
        """The hot path: a stamp, the bytes, and whether that was all."""
        now = self._clock_ns()
        exchange = self._exchange
        if exchange is None:
            self.abort()
            return
        exchange.reads.append((now, data))
        try:
            complete = self._end.feed(data)
        except HttpWireError as error:
            self._finish(now, Failure.PROTOCOL, str(error))
            return
        if complete:
            self._finish(now, None, "")

    def connection_lost(self, exc: Exception | None) -> None:
        """A response without a length ends well here; any other is lost."""
        exchange = self._exchange
        if exchange is not None:
            exchange.closed = exc is None
            ended = exc is None and self._end.at_eof()
            failure = None if ended else Failure.CONNECTION_LOST
            self._finish(self._clock_ns(), failure, str(exc) if exc else "the peer closed")
        self._run.drop(self)

    def _finish(self, now: int, failure: Failure | None, detail: str) -> None:
        exchange, self._exchange = self._exchange, None
        if failure is not None or not self._end.keep_alive:
            self.abort()
        if exchange is not None:
            self._run.finish(exchange, now, failure, detail, self)

    def abort(self) -> None:
        """Close at once; a running exchange is no longer ours."""
        self._exchange = None
        if self._transport is not None:
            self._transport.abort()
