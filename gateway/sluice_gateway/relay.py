"""From the engine to the client: bytes through, as they come, until the end or the honest announcement of a
failure.

Rules:

- A stream's status waits for the first data event, so that an error there still becomes a real status (and
  another engine may be tried). Comments that come meanwhile are held too: `keep_alive.py` sends its own
  when the wait gets long.
- The client sees the engine's bytes unchanged, but for the usage event that it did not ask for, and but for a
  translation into the client's dialect when the engine does not speak it.
- The first-token deadline runs until there is content; comments and empty deltas do not count.
- A stream that ends without `[DONE]` and without a finish reason was cut, and is reported as such. What the
  client got of it is in the transcript, so that another engine may go on (`resumption/`), whose events are
  spliced in.
- A plain answer is held until it is complete, up to a bound, so that a connection lost in its middle is
  still a real status. A larger one is passed on as it comes.

Failures are returned, not raised; whether they can still be repaired is seen from
`Responder.content_started`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NoReturn

from sluice_engines.transport import UpstreamError, UpstreamResponse
from sluice_gateway import upstream_failure
from sluice_gateway.dialects.translation import Translation
from sluice_gateway.errors import Failure, Problem, problem
from sluice_gateway.response import Responder
from sluice_gateway.resumption.splice import Splice, Unfit
from sluice_gateway.resumption.transcript import Transcript
from sluice_gateway.sse import DONE, Splitter, event_data
from sluice_gateway.upstream import pump
from sluice_gateway.upstream.response import HttpResponse
from sluice_gateway.usage import Observer, Tail, read_body
from sluice_gateway.wire import Header
from sluice_router.types import Usage

Contend = Callable[[], bool]
"""Asks, once, whether this attempt is the one that answers."""
Finishing = Callable[[Problem | None], Awaitable[None]]

LOST = problem(Failure.CLIENT_GONE, "Another attempt at the same request answered first.")
"""The end of an attempt that nobody is told of."""

_HOLD_BODY_BYTES = 1 << 20
_HOLD_COMMENT_BYTES = 16_384


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


class _Stop(Exception):
    """The stream held an error: nothing after it is of interest."""


class StreamRelay:
    """Relays one event stream."""

    __slots__ = (
        "_backend",
        "_client",
        "_clock",
        "_contend",
        "_finishing",
        "_first_token",
        "_flows",
        "_found",
        "_held",
        "_last_write",
        "_on_content",
        "_plain_events",
        "_splice",
        "_splitter",
        "_transcript",
        "_translation",
        "first_token_at_s",
        "lost",
        "observer",
    )

    def __init__(
        self,
        client: Responder,
        backend: str,
        observer: Observer,
        *,
        clock: Callable[[], float],
        translation: Translation | None = None,
        finishing: Finishing | None = None,
        on_content: Callable[[], None] | None = None,
        contend: Contend | None = None,
        transcript: Transcript | None = None,
        splice: Splice | None = None,
    ) -> None:
        """`finishing` is waited for before the last bytes of an answer leave, `on_content` is called at the
        first content. `contend` is for one of two attempts: nothing leaves before there is content, and then
        only if it says so. `transcript` gets what the client gets, if that is a stream of chat or text
        completions; `splice` is for one that goes on with another engine's."""
        self._client = client
        self._backend = backend
        self._clock = clock
        self._translation = translation
        self._finishing = finishing
        self._on_content = on_content
        self._contend = contend
        self._transcript = transcript
        self._splice = splice
        self._plain_events = 0
        """Pieces of text that the observer has not been told of yet."""
        self._splitter = Splitter()
        self._first_token: asyncio.Timeout | None = None
        self._flows = False
        """The client gets content as it comes: a chunk of plain content is looked at only once."""
        self._found: Problem | None = None
        self._held: list[bytes] = []
        self._last_write: Awaitable[None] | None = None
        self.observer = observer
        self.lost = False
        """Another attempt answers."""
        self.first_token_at_s: float | None = None
        """When the first content had been given to the client."""

    @property
    def contends(self) -> bool:
        """Whether it is still open if this attempt answers."""
        return self._contend is not None

    async def run(self, response: UpstreamResponse, first_token: asyncio.Timeout) -> Problem | None:
        """Relay to the end. `first_token` is the running deadline, switched off when content comes."""
        self._first_token = first_token
        try:
            await pump(response, self._take)
        except _Stop:
            pass
        except UpstreamError as error:
            return upstream_failure.from_exception(error, self._backend)
        else:
            return await self._end()
        finally:
            self._settle()
        await _done(self._last_write)
        return self._found

    def _settle(self) -> None:
        """Tell the observer of what it did not need to see."""
        self.observer.data_events += self._plain_events
        self.observer.content_events += self._plain_events
        self._plain_events = 0

    def _take(self, chunk: bytes) -> Awaitable[None] | None:
        """Pass the events in a chunk on, up to the first that is an error."""
        observer, transcript = self.observer, self._transcript
        if self._flows and not self._splitter.pending:
            if transcript is not None and transcript.take(chunk):
                self._plain_events += 1
                return self._client.write(chunk)
            if observer.note_plain(chunk):
                if transcript is not None:
                    transcript.note(chunk)
                return self._client.write(chunk)
        kept: list[bytes] = []
        for event in self._splitter.feed(chunk):
            keep = observer.keep(event)
            if observer.error is not None:
                self._fail(observer.error, kept)
            if keep:
                kept.append(event)
        if not observer.data_events:
            self._hold(kept)
            return None
        if self._contend is not None:
            if not observer.content_events and not observer.ended:
                self._held += kept
                return None
            self._enter(self._contend)
        if self._held:
            kept, self._held = self._held + kept, []
        if not kept:
            return None
        if self.first_token_at_s is None and observer.content_events and self._first_token is not None:
            self.first_token_at_s = self._clock()
            self._first_token.reschedule(None)
            self._flows = self._translation is None and self._splice is None
            if self._on_content is not None:
                self._on_content()
        return self._write(kept)

    def _enter(self, contend: Contend) -> None:
        """Be the attempt that answers, or none."""
        self._contend = None
        if not contend():
            self.lost, self._found = True, LOST
            raise _Stop

    def _hold(self, comments: list[bytes]) -> None:
        """Comments before the first data: they come with it, or not at all."""
        if sum(map(len, self._held)) < _HOLD_COMMENT_BYTES:
            self._held += comments

    def _write(self, events: list[bytes]) -> Awaitable[None] | None:
        if self._splice is not None:
            events = self._spliced(self._splice, events)
            if not events:
                return None
        if self._transcript is not None:
            for event in events:
                if not self._transcript.take(event):
                    self._transcript.note(event)
        data = events[0] if len(events) == 1 else b"".join(events)
        if self._translation is not None:
            data = self._translate(self._translation, events)
            if not data:
                return None
        client = self._client
        if client.started:
            return client.write(data)
        waiting = client.start_events()
        if waiting is None:
            return client.write(data)
        return _both(waiting, client, data)

    def _spliced(self, splice: Splice, events: list[bytes]) -> list[bytes]:
        try:
            return splice.events(events)
        except Unfit as error:
            self._found = upstream_failure.no_continuation(self._backend)
            raise _Stop from error

    def _translate(self, translation: Translation, events: list[bytes]) -> bytes:
        parts = []
        for event in events:
            data = event_data(event)
            if data is not None and data != DONE:
                try:
                    parts.append(translation.events(data))
                except ValueError as error:
                    if self._transcript is not None:
                        self._transcript.drop()
                    self._found = upstream_failure.not_understood(self._backend, error)
                    raise _Stop from error
        return b"".join(parts)

    def _fail(self, error: bytes, kept: list[bytes]) -> NoReturn:
        self._found = upstream_failure.from_error_object(error, self._backend)
        if self._contend is None and self._client.content_started and kept:
            self._last_write = self._write(kept)
        raise _Stop

    async def _end(self) -> Problem | None:
        if not self.observer.ended:
            return upstream_failure.cut_short(self._backend)
        contend, self._contend = self._contend, None
        if contend is not None and not contend():
            self.lost = True
            return LOST
        rest = self._splitter.flush() if self._translation is None else self._translation.end()
        if self._splice is not None and self._translation is None:
            rest = b""
        if self._finishing is not None:
            await self._finishing(None)
        if not self._client.started:
            await _done(self._client.start_events())
        await _done(self._client.finish(rest))
        return None


class BodyRelay:
    """Relays one plain answer."""

    __slots__ = ("_backend", "_client", "_contend", "_finishing", "_translation", "lost", "usage")

    def __init__(
        self,
        client: Responder,
        backend: str,
        translation: Translation | None = None,
        finishing: Finishing | None = None,
        contend: Contend | None = None,
    ) -> None:
        """`finishing` is waited for before an answer leaves. `contend` is for one of two attempts: nothing
        leaves unless it says so."""
        self._client = client
        self._backend = backend
        self._translation = translation
        self._finishing = finishing
        self._contend = contend
        self.lost = False
        """Another attempt answers."""
        self.usage: Usage | None = None
        """What the engine reported, once `run` has ended."""

    async def run(self, response: UpstreamResponse) -> Problem | None:
        """Relay to the end."""
        head = (_content_type(response),)
        if isinstance(response, HttpResponse):
            body = response.take_whole()
            if body is not None:
                return await self._whole(body, head)
        parts: list[bytes] = []
        size = 0
        tail: Tail | None = None
        # Only JSON can tell an error or a usage: sound and pictures are passed on as they come.
        hold_bytes = _HOLD_BODY_BYTES if head[0][1].startswith(b"application/json") else 0
        try:
            async for chunk in response:
                if tail is not None:
                    tail.feed(chunk)
                    await _done(self._client.write(chunk))
                    continue
                parts.append(chunk)
                size += len(chunk)
                if size > hold_bytes and self._translation is None:
                    if not self._enter():
                        return LOST
                    tail = await self._begin(head, b"".join(parts))
        except UpstreamError as error:
            return upstream_failure.from_exception(error, self._backend)
        if tail is None:
            return await self._whole(parts[0] if len(parts) == 1 else b"".join(parts), head)
        self.usage = tail.usage()
        await _done(self._client.finish())
        return None

    async def _begin(self, head: tuple[Header, ...], body: bytes) -> Tail:
        """Too large to be held: from here on it is passed on as it comes."""
        tail = Tail()
        tail.feed(body)
        await _done(self._client.start(200, head))
        await _done(self._client.write(body))
        return tail

    async def _whole(self, body: bytes, head: tuple[Header, ...]) -> Problem | None:
        if head[0][1].startswith(b"application/json"):
            reading = read_body(body)
            self.usage = reading.usage
            if reading.is_error:
                return upstream_failure.from_error_object(body, self._backend)
        if not self._enter():
            return LOST
        if self._translation is not None:
            try:
                body = self._translation.whole(body)
            except ValueError as error:
                return upstream_failure.not_understood(self._backend, error)
            head = ((b"content-type", b"application/json"),)
        if self._finishing is not None:
            await self._finishing(None)
        await _done(self._client.whole(200, body, head))
        return None

    def _enter(self) -> bool:
        """Be the attempt that answers; False when there is another."""
        contend, self._contend = self._contend, None
        self.lost = contend is not None and not contend()
        return not self.lost


async def _done(waiting: Awaitable[None] | None) -> None:
    if waiting is not None:
        await waiting


async def _both(started: Awaitable[None], client: Responder, data: bytes) -> None:
    await started
    await _done(client.write(data))


def _content_type(response: UpstreamResponse) -> Header:
    return (b"content-type", _header(response, b"content-type") or b"application/json")


def _header(response: UpstreamResponse, wanted: bytes) -> bytes:
    for name, value in response.headers:
        if name == wanted:
            return value
    return b""
