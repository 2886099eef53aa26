"""Writing answers: the headers that every one of them carries, and the state of the one being written.

Invariant: at most one response start and one final body leave through a `Responder`. It does not decide what
to answer. uvicorn's `send` returns silently once the client has gone, so a failed write never shows here; the
watcher in `disconnect.py` is what notices.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable

from sluice_gateway.errors import Problem
from sluice_gateway.wire import Header, Send

REQUEST_ID = "x-request-id"
PROCESSING_MS = "openai-processing-ms"
API_VERSION = "openai-version"
SERVED_BY = "x-sluice-backend"
RETRY_AFTER = "retry-after"
RETRY_AFTER_MS = "retry-after-ms"

EXPOSED = (REQUEST_ID, PROCESSING_MS, API_VERSION, SERVED_BY, RETRY_AFTER, RETRY_AFTER_MS)
"""Response headers that scripts in a browser may read."""

_JSON: Header = (b"content-type", b"application/json")
_EVENT_STREAM: tuple[Header, ...] = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)
_REQUEST_ID_BYTES = REQUEST_ID.encode()
_PROCESSING_MS_BYTES = PROCESSING_MS.encode()
_VERSION: Header = (API_VERSION.encode(), b"2020-10-01")
_VALID_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")


def request_id_of(headers: dict[bytes, bytes]) -> str:
    """The client's own `x-request-id` if it is short and plain, otherwise a new one."""
    given = headers.get(_REQUEST_ID_BYTES)
    if given is not None and _VALID_ID.fullmatch(given):
        return given.decode("ascii")
    return "req_" + os.urandom(12).hex()


class Envelope:
    """What every answer to one request carries, whoever writes it."""

    __slots__ = ("_clock", "_extra", "request_id", "started_s")

    def __init__(self, request_id: str, clock: Callable[[], float], extra: list[Header]) -> None:
        """`clock` gives monotonic seconds; `extra` headers are for the browser, usually none."""
        self.request_id = request_id
        self.started_s = clock()
        self._clock = clock
        self._extra = extra

    def headers(self) -> list[Header]:
        """Request id, processing time until now, API version, and the browser's."""
        elapsed_ms = int((self._clock() - self.started_s) * 1000)
        return [
            (_REQUEST_ID_BYTES, self.request_id.encode()),
            (_PROCESSING_MS_BYTES, b"%d" % elapsed_ms),
            _VERSION,
            *self._extra,
        ]


class Responder:
    """Writes one response on the data plane."""

    __slots__ = ("_envelope", "_send", "finished", "is_event_stream", "served_by", "status")

    def __init__(self, send: Send, envelope: Envelope) -> None:
        self._send = send
        self._envelope = envelope
        self.status = 0
        """0 until the response has started."""
        self.finished = False
        self.is_event_stream = False
        self.served_by = ""
        """Backend to name in the response's head."""

    @property
    def started(self) -> bool:
        """Whether the client has seen a status: from then on nothing can be taken back."""
        return self.status != 0

    async def start(self, status: int, headers: tuple[Header, ...]) -> None:
        """Send the head."""
        self.status = status
        head = [*headers, *self._envelope.headers()]
        if self.served_by:
            head.append((SERVED_BY.encode(), self.served_by.encode()))
        await self._send({"type": "http.response.start", "status": status, "headers": head})

    async def start_events(self) -> None:
        """Send the head of an event stream."""
        self.is_event_stream = True
        await self.start(200, _EVENT_STREAM)

    async def write(self, body: bytes) -> None:
        """Send a piece of the body; more follows. Waits while the client does not read."""
        await self._send({"type": "http.response.body", "body": body, "more_body": True})

    async def finish(self, body: bytes = b"") -> None:
        """Send the last piece of the body."""
        self.finished = True
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def whole(self, status: int, body: bytes, headers: tuple[Header, ...] = (_JSON,)) -> None:
        """Send a complete answer."""
        await self.start(status, (*headers, (b"content-length", b"%d" % len(body))))
        await self.finish(body)

    async def problem(self, found: Problem) -> None:
        """Tell the client what went wrong, in the way that is still possible.

        Before the head: a status with OpenAI's JSON. In an event stream: one error event, then the end,
        without `[DONE]`. In any other body: nothing; returning without `finish` makes the server cut the
        connection, which is the only honest end of a body that lacks its rest.
        """
        if self.finished:
            return
        if not self.started:
            await self.whole(found.status, found.body(), problem_headers(found))
        elif self.is_event_stream:
            await self.finish(found.event())


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
