"""Writing answers: the headers that every one of them carries, and the state of the one being written.

Invariant: at most one response start and one final body leave through a `Responder`. It does not decide what
to answer. uvicorn's `send` returns silently once the client has gone, so a failed write never shows here; the
watcher in `disconnect.py` is what notices.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from sluice_gateway.dialects import anthropic_errors
from sluice_gateway.errors import Problem
from sluice_gateway.exchange import Exchange
from sluice_gateway.interruption import Interruption
from sluice_gateway.limits.headers import ANTHROPIC_RATE_HEADERS, RATE_HEADERS, SHOULD_RETRY
from sluice_gateway.limits.headers import MODE as LIMITS_MODE
from sluice_gateway.routes import Family
from sluice_gateway.wire import Header, Wire

REQUEST_ID = "x-request-id"
ANTHROPIC_REQUEST_ID = "request-id"
PROCESSING_MS = "openai-processing-ms"
API_VERSION = "openai-version"
SERVED_BY = "x-sluice-backend"
ROUTE = "x-sluice-route"
TIMING = "server-timing"
RETRY_AFTER = "retry-after"
RETRY_AFTER_MS = "retry-after-ms"

EXPOSED = (
    *(REQUEST_ID, PROCESSING_MS, API_VERSION, SERVED_BY, ROUTE, TIMING, RETRY_AFTER, RETRY_AFTER_MS),
    *(ANTHROPIC_REQUEST_ID, *RATE_HEADERS, *ANTHROPIC_RATE_HEADERS, LIMITS_MODE, SHOULD_RETRY),
)
"""Response headers that scripts in a browser may read."""

_JSON: Header = (b"content-type", b"application/json")
_EVENT_STREAM: tuple[Header, ...] = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)
_REQUEST_ID_BYTES = REQUEST_ID.encode()
_ANTHROPIC_REQUEST_ID_BYTES = ANTHROPIC_REQUEST_ID.encode()
_PROCESSING_MS_BYTES = PROCESSING_MS.encode()
_VERSION: Header = (API_VERSION.encode(), b"2020-10-01")


class Envelope:
    """What every answer to one request carries, whoever writes it."""

    __slots__ = ("_clock", "_extra", "family", "request_id", "started_s")

    def __init__(
        self,
        request_id: str,
        clock: Callable[[], float],
        extra: list[Header],
        family: Family = "openai",
    ) -> None:
        """`clock` gives monotonic seconds; `extra` headers are for the browser, usually none."""
        self.request_id = request_id
        self.family = family
        self.started_s = clock()
        self._clock = clock
        self._extra = extra

    def headers(self) -> list[Header]:
        """Request id, processing time until now, API version, and the browser's."""
        elapsed_ms = int((self._clock() - self.started_s) * 1000)
        request_id = self.request_id.encode()
        headers = [
            (_REQUEST_ID_BYTES, request_id),
            (_PROCESSING_MS_BYTES, b"%d" % elapsed_ms),
            _VERSION,
            *self._extra,
        ]
        if self.family == "anthropic":
            headers.append((_ANTHROPIC_REQUEST_ID_BYTES, request_id))
        return headers


class ErrorWords(Protocol):
    """How a family of clients is told of a failure."""

    def body(self, found: Problem, request_id: str) -> bytes:
        """The JSON of an error answer."""
        ...

    def event(self, found: Problem, request_id: str) -> bytes:
        """The event that ends a stream."""
        ...


class OpenAIWords:
    """OpenAI's error shape."""

    def body(self, found: Problem, request_id: str) -> bytes:
        """See `ErrorWords`."""
        return found.body()

    def event(self, found: Problem, request_id: str) -> bytes:
        """See `ErrorWords`."""
        return found.event()


class AnthropicWords:
    """Anthropic's error shape."""

    def body(self, found: Problem, request_id: str) -> bytes:
        """See `ErrorWords`."""
        return anthropic_errors.body(found, request_id)

    def event(self, found: Problem, request_id: str) -> bytes:
        """See `ErrorWords`."""
        return anthropic_errors.event(found, request_id)


WORDS: Mapping[Family, ErrorWords] = {"openai": OpenAIWords(), "anthropic": AnthropicWords()}


class Responder:
    """Writes one response on the data plane."""

    __slots__ = (
        "_envelope",
        "_interruption",
        "_wire",
        "_words",
        "content_started",
        "extra",
        "failure_event",
        "finished",
        "inside_event",
        "is_event_stream",
        "status",
        "writes",
    )

    def __init__(self, wire: Wire, envelope: Envelope, interruption: Interruption, words: ErrorWords) -> None:
        self._wire = wire
        self._envelope = envelope
        self._interruption = interruption
        self._words = words
        self.status = 0
        """0 until the response has started."""
        self.content_started = False
        """Bytes other than comments have been written: from then on no other engine can take over."""
        self.finished = False
        self.is_event_stream = False
        self.inside_event = False
        """What was written last was no whole event: a comment would land in its middle."""
        self.writes = 0
        """How often content was written."""
        self.failure_event: Callable[[Problem], bytes] | None = None
        """The event that ends a stream which a translation has begun; else it is the family's."""
        self.extra: Callable[[], list[Header]] | None = None
        """Gives the headers that depend on how the request went, when the head is written."""

    @property
    def started(self) -> bool:
        """Whether the client has seen a status."""
        return self.status != 0

    def start(self, status: int, headers: tuple[Header, ...]) -> Awaitable[None] | None:
        """Send the head."""
        self.status = status
        return self._wire.start(status, self._head(headers))

    def start_events(self) -> Awaitable[None] | None:
        """Send the head of an event stream."""
        self.is_event_stream = True
        return self.start(200, _EVENT_STREAM)

    def write(self, body: bytes) -> Awaitable[None] | None:
        """Send a piece of the body; more follows. To be waited for while the client does not read."""
        self.content_started = True
        self.inside_event = not body.endswith(b"\n")
        self.writes += 1
        return self._wire.write(body)

    def comment(self, body: bytes) -> Awaitable[None] | None:
        """Send what is no content, in an event stream that has begun."""
        return self._wire.write(body)

    def finish(self, body: bytes = b"") -> Awaitable[None] | None:
        """Send the last piece of the body."""
        self.finished = self._interruption.answered = True
        return self._wire.finish(body)

    def whole(
        self, status: int, body: bytes, headers: tuple[Header, ...] = (_JSON,)
    ) -> Awaitable[None] | None:
        """Send a complete answer."""
        self.status = status
        self.content_started = self.finished = self._interruption.answered = True
        return self._wire.whole(status, self._head(headers), body)

    def adopt(self, status: int, finished: bool, is_event_stream: bool) -> None:
        """The answer, or a part of it, has been written to the wire by somebody else."""
        if status:
            self.status, self.content_started = status, True
            self.finished, self.is_event_stream = finished, is_event_stream

    async def problem(self, found: Problem) -> None:
        """Tell the client what went wrong, in the way that is still possible.

        Before the head: a status with the error's JSON. In an event stream: one error event, then the end,
        without `[DONE]`. In any other body: nothing; returning without `finish` makes the carrier cut the
        connection, which is the only honest end of a body that lacks its rest.
        """
        if self.finished:
            return
        request_id = self._envelope.request_id
        waiting: Awaitable[None] | None = None
        if not self.started:
            body = self._words.body(found, request_id)
            waiting = self.whole(found.status, body, problem_headers(found))
        elif self.is_event_stream:
            event = self._words.event(found, request_id)
            if self.failure_event is not None and self.content_started:
                event = self.failure_event(found)
            waiting = self.finish(event)
        if waiting is not None:
            await waiting

    def _head(self, headers: tuple[Header, ...]) -> list[Header]:
        head = [*headers, *self._envelope.headers()]
        if self.extra is not None:
            head += self.extra()
        return head


def decision_headers(exchange: Exchange, elapsed_s: float) -> list[Header]:
    """Who serves, why, and where the time until now went.

    `queue` and `upstream` in milliseconds, `overhead` is the rest: the gateway's own. Source: W3C
    Server Timing.
    """
    overhead_s = max(0.0, elapsed_s - exchange.queued_s - exchange.upstream_s)
    timing = b"queue;dur=%.3f, upstream;dur=%.3f, overhead;dur=%.3f" % (
        exchange.queued_s * 1000,
        exchange.upstream_s * 1000,
        overhead_s * 1000,
    )
    headers: list[Header] = [(b"server-timing", timing)]
    if exchange.backend:
        headers.append((b"x-sluice-backend", exchange.backend.encode()))
    if exchange.route:
        headers.append((b"x-sluice-route", exchange.route.encode("ascii", "replace")))
    return headers


def problem_headers(found: Problem) -> tuple[Header, ...]:
    """Headers that belong to a failure, its content type included."""
    headers = [_JSON, *found.headers]
    if found.retry_after_s is not None:
        # Whole seconds, rounded up: a client that comes back early would be refused again.
        headers.append((RETRY_AFTER.encode(), b"%d" % max(1, -int(-found.retry_after_s // 1))))
        headers.append((RETRY_AFTER_MS.encode(), b"%d" % max(1, int(found.retry_after_s * 1000))))
    if found.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    return tuple(headers)
