"""From the engine to the client: bytes through, as they come, until the end or the honest announcement of a
failure.

Rules:

- A stream's status waits for the first data event, so that an error there still becomes a real status (and
  another engine may be tried). Comments that come meanwhile are held too, up to `hold_status_s`, after which
  the engine's keep-alives go through to whoever would otherwise give up.
- The client sees the engine's bytes unchanged, but for the usage event that it did not ask for.
- The first-token deadline runs until there is content; comments and empty deltas do not count.
- A stream that ends without `[DONE]` and without a finish reason was cut, and is reported as such.
- A plain answer is held until it is complete, up to a bound, so that a connection lost in its middle is
  still a real status. A larger one is passed on as it comes.

Failures are returned, not raised; whether they can still be repaired is seen from `Responder.started`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from sluice_engines.transport import UpstreamError, UpstreamResponse
from sluice_gateway import upstream_failure
from sluice_gateway.errors import Problem
from sluice_gateway.response import Responder
from sluice_gateway.sse import Splitter
from sluice_gateway.usage import StreamObserver, Tail, read_body
from sluice_gateway.wire import Header
from sluice_router.types import Usage

_HOLD_BODY_BYTES = 1 << 20


def is_event_stream(response: UpstreamResponse) -> bool:
    """Whether an answer is a stream of events."""
    return _header(response, b"content-type").startswith(b"text/event-stream")


async def read_refusal(response: UpstreamResponse, backend: str) -> Problem:
    """The failure that an answer with a status other than 2xx stands for."""
    parts: list[bytes] = []
    size = 0
    try:
        async for chunk in response:
            parts.append(chunk)
            size += len(chunk)
            if size > upstream_failure.MAX_ERROR_BYTES:
                break
    except UpstreamError as error:
        if not parts:
            return upstream_failure.from_exception(error, backend)
    return upstream_failure.from_response(response.status, response.headers, b"".join(parts), backend)


class StreamRelay:
    """Relays one event stream."""

    __slots__ = (
        "_backend",
        "_client",
        "_clock",
        "_held",
        "_hold_until_s",
        "_splitter",
        "first_token_at_s",
        "observer",
    )

    def __init__(
        self,
        client: Responder,
        backend: str,
        *,
        hide_usage: bool,
        hold_until_s: float,
        clock: Callable[[], float],
    ) -> None:
        """`hold_until_s`, on `clock`: from then on a comment is enough to send the status."""
        self._client = client
        self._backend = backend
        self._clock = clock
        self._held: list[bytes] = []
        self._hold_until_s = hold_until_s
        self._splitter = Splitter()
        self.observer = StreamObserver(hide_usage)
        self.first_token_at_s: float | None = None
        """When the first content had been given to the client."""

    async def run(self, response: UpstreamResponse, first_token: asyncio.Timeout) -> Problem | None:
        """Relay to the end. `first_token` is the running deadline, switched off when content comes."""
        try:
            async for chunk in response:
                found = await self._relay(self._splitter.feed(chunk))
                if found is not None:
                    return found
                if self.first_token_at_s is None and self.observer.content_events:
                    self.first_token_at_s = self._clock()
                    first_token.reschedule(None)
        except UpstreamError as error:
            return upstream_failure.from_exception(error, self._backend)
        return await self._end()

    async def _relay(self, events: list[bytes]) -> Problem | None:
        """Pass events on, up to the first that is an error."""
        observer, kept = self.observer, []
        for event in events:
            keep = observer.keep(event)
            if observer.error is not None:
                break
            if keep:
                kept.append(event)
        if observer.error is None:
            await self._write(kept)
            return None
        if self._client.started and kept:
            await self._write(kept)
        return upstream_failure.from_error_object(observer.error, self._backend)

    async def _write(self, events: list[bytes]) -> None:
        if not self._client.started:
            self._held += events
            if not self._may_start():
                return
            events, self._held = self._held, []
            await self._client.start_events()
        if events:
            await self._client.write(events[0] if len(events) == 1 else b"".join(events))

    def _may_start(self) -> bool:
        """Whether the status is settled: data has come, or comments have gone on for too long."""
        if self.observer.data_events:
            return True
        return bool(self._held) and self._clock() >= self._hold_until_s

    async def _end(self) -> Problem | None:
        if not (self.observer.done or self.observer.finished):
            return upstream_failure.cut_short(self._backend)
        await self._client.finish(self._splitter.flush())
        return None


class BodyRelay:
    """Relays one plain answer."""

    __slots__ = ("_backend", "_client", "usage")

    def __init__(self, client: Responder, backend: str) -> None:
        self._client = client
        self._backend = backend
        self.usage: Usage | None = None
        """What the engine reported, once `run` has ended."""

    async def run(self, response: UpstreamResponse) -> Problem | None:
        """Relay to the end."""
        chunks = aiter(response)
        head = (_content_type(response),)
        try:
            body, complete = await _collect(chunks)
            if complete:
                return await self._whole(body, head)
            await self._client.start(200, head)
            await self._pass_on(body, chunks)
        except UpstreamError as error:
            return upstream_failure.from_exception(error, self._backend)
        return None

    async def _whole(self, body: bytes, head: tuple[Header, ...]) -> Problem | None:
        reading = read_body(body)
        self.usage = reading.usage
        if reading.is_error:
            return upstream_failure.from_error_object(body, self._backend)
        await self._client.whole(200, body, head)
        return None

    async def _pass_on(self, body: bytes, chunks: AsyncIterator[bytes]) -> None:
        tail = Tail()
        tail.feed(body)
        await self._client.write(body)
        async for chunk in chunks:
            tail.feed(chunk)
            await self._client.write(chunk)
        self.usage = tail.usage()
        await self._client.finish()


async def _collect(chunks: AsyncIterator[bytes]) -> tuple[bytes, bool]:
    """The body's start up to the bound, and whether that is all of it."""
    parts: list[bytes] = []
    size = 0
    async for chunk in chunks:
        parts.append(chunk)
        size += len(chunk)
        if size > _HOLD_BODY_BYTES:
            return b"".join(parts), False
    return parts[0] if len(parts) == 1 else b"".join(parts), True


def _content_type(response: UpstreamResponse) -> Header:
    return (b"content-type", _header(response, b"content-type") or b"application/json")


def _header(response: UpstreamResponse, wanted: bytes) -> bytes:
    for name, value in response.headers:
        if name == wanted:
            return value
    return b""
