"""The events of a background response, as they come: kept in memory for those who follow them here.

Invariant: event number n of the response is entry n of the log. Followers see each event once, in order, from
wherever they want to begin. Comments are not events and are not kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

import msgspec

from sluice_gateway.dialects.responses.event_stream import LAST
from sluice_gateway.errors import Failure, Problem, problem
from sluice_gateway.sse import Splitter, event_data
from sluice_gateway.wire import Header

_ENDS = tuple(b"event: " + kind.encode() + b"\n" for kind in (*sorted(LAST), "error"))
_NAMED = b"event: "
_BROKEN_OFF = 502
"""Status of an error that came when a stream had begun: an event without a name."""


class _Error(msgspec.Struct, frozen=True):
    message: str = "The response failed."


class _ErrorBody(msgspec.Struct, frozen=True):
    error: _Error = _Error()


class LogFull(Exception):
    """More events than may be kept."""


class EventLog:
    """One response's events."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._size = 0
        self._events: list[bytes] = []
        self._flushed = 0
        self._closed = False
        self._news = asyncio.Event()

    def __len__(self) -> int:
        return len(self._events)

    @property
    def has_end(self) -> bool:
        """Whether the last event says that it is the last."""
        return bool(self._events) and ends(self._events[-1])

    def append(self, events: Iterable[bytes]) -> None:
        """Add framed events. Raises `LogFull`."""
        for event in events:
            self._size += len(event)
            if self._size > self._max_bytes:
                raise LogFull
            self._events.append(event)
        self._wake()

    def append_end(self, event: bytes) -> None:
        """Add the last event, which there is always room for."""
        self._events.append(event)
        self._wake()

    def close(self) -> None:
        """No more will come."""
        self._closed = True
        self._wake()

    def unflushed(self) -> tuple[int, bytes]:
        """The events since the last call, and the number of the first."""
        first, self._flushed = self._flushed, len(self._events)
        return first, b"".join(self._events[first:])

    async def follow(self, after: int) -> AsyncIterator[bytes]:
        """Events with a number above `after`, until the last."""
        at = after + 1
        while True:
            pending = self._events[at:]
            at += len(pending)
            if pending:
                yield b"".join(pending)
            elif self._closed:
                return
            else:
                await self._news.wait()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


class LogWire:
    """A `Wire` into a log: where the pipeline answers when no client waits."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._splitter = Splitter()
        self.found: Problem | None = None
        """The error that was answered instead of a response."""

    def start(self, status: int, headers: list[Header]) -> None:
        """See `Wire`."""

    def write(self, data: bytes) -> None:
        """See `Wire`. Raises `LogFull`."""
        for event in self._splitter.feed(data):
            if event.startswith(_NAMED):
                self._log.append((event,))
            elif (unnamed := event_data(event)) is not None:
                self.found = _problem(_BROKEN_OFF, unnamed)

    def finish(self, data: bytes = b"") -> None:
        """See `Wire`."""
        if data:
            self.write(data)

    def whole(self, status: int, headers: list[Header], body: bytes) -> None:
        """See `Wire`. A response itself is not needed: the ask has it."""
        if status >= 400:
            self.found = _problem(status, body)


def ends(event: bytes) -> bool:
    """Whether a framed event is a stream's last."""
    return event.startswith(_ENDS)


def _problem(status: int, body: bytes) -> Problem:
    try:
        said = msgspec.json.decode(body, type=_ErrorBody).error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        said = _Error()
    return msgspec.structs.replace(problem(Failure.UPSTREAM_ERROR, said.message), status=status)
