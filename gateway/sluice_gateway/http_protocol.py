"""uvicorn's HTTP/1.1 protocol, stricter and friendlier where hostile or unusual clients meet it.

- What is not HTTP is answered in OpenAI's shape like all else, and never into an answer that has begun.
- A request's head is bounded in bytes and in time, so that nobody fills the memory or holds a connection by
  never finishing it.
- An offer to switch to another protocol (`Upgrade: h2c`, which Java's HTTP client makes with its first
  request) is declined by serving the request as it is, with its body. The parser stops after such a head;
  the head is given to it once more without the offer. Source: RFC 9110, section 7.8.
- When a connection is lost, every request on it hears of it, not only the last of a pipeline.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httptools
import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from sluice_gateway.errors import Failure, Problem, problem
from sluice_gateway.response import Envelope, problem_headers, request_id_of

MAX_HEAD_BYTES = 65_536
"""Request line and headers. What came in the read in which the request began is not counted."""

_NOT_HTTP = problem(Failure.INVALID_REQUEST, "The request is not valid HTTP/1.1; check client and proxies.")
_HEAD_TOO_LARGE = msgspec.structs.replace(
    problem(Failure.INVALID_REQUEST, f"The request's headers are larger than {MAX_HEAD_BYTES} bytes."),
    status=431,
)
_HEAD_TIMEOUT = problem(Failure.BODY_TIMEOUT, "The request's headers did not arrive in time; send it again.")
_OFFER = frozenset({b"connection", b"upgrade", b"http2-settings"})


class HttpProtocol(HttpToolsProtocol):
    """One client's connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_head = False
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._cycles: list[RequestResponseCycle] = []

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._stop_head_timer()
        for cycle in self._cycles:
            if not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._unset_keepalive_if_required()
        if self._in_head:
            self._head_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._decline_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._refuse(_NOT_HTTP)
        else:
            self._bound_head()

    def on_message_begin(self) -> None:
        """A request's first byte."""
        super().on_message_begin()
        self._in_head, self._head_bytes = True, 0

    def on_headers_complete(self) -> None:
        """A request's head is there: it can be served."""
        self._in_head = False
        self._stop_head_timer()
        if self.parser.should_upgrade():
            return
        super().on_headers_complete()
        self._cycles = [cycle for cycle in self._cycles if not cycle.response_complete]
        self._cycles.append(self.cycle)

    def on_message_complete(self) -> None:
        """A request's last byte."""
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def _bound_head(self) -> None:
        if not self._in_head:
            return
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(_HEAD_TOO_LARGE)
        elif self._head_timer is None:
            self._await_head()

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(self.timeout_keep_alive, self._refuse, _HEAD_TIMEOUT)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _decline_upgrade(self, rest: bytes) -> None:
        """Parse the request anew without the offer; `rest` is what came after its head."""
        method: bytes = self.parser.get_method()
        if method == b"CONNECT":  # would be an offer again
            self._refuse(_NOT_HTTP)
            return
        lines = [b"%b %b HTTP/%b" % (method, self.url, self.parser.get_http_version().encode())]
        lines += [b"%b: %b" % header for header in self.headers if header[0] not in _OFFER]
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(b"\r\n".join([*lines, b"", rest]))

    def _refuse(self, found: Problem) -> None:
        """Answer what never became a request, if no other answer is under way, and close."""
        self._stop_head_timer()
        if self.transport.is_closing():
            return
        if all(cycle.response_complete for cycle in self._cycles):
            self.transport.write(_answer(found, self.loop.time))
        self.transport.close()


def _answer(found: Problem, clock: Callable[[], float]) -> bytes:
    body = found.body()
    envelope = Envelope(request_id_of({}), clock, [])
    headers = (*problem_headers(found), *envelope.headers(), (b"content-length", b"%d" % len(body)))
    lines = [b"%b: %b\r\n" % header for header in (*headers, (b"connection", b"close"))]
    return b"".join([STATUS_LINE[found.status], *lines, b"\r\n", body])
