"""uvicorn's HTTP/1.1 protocol, with the data plane served on the spot and all else handed to ASGI.

A POST to a data-plane path never becomes an ASGI scope: its `NativeClient` goes to the pipeline as it is,
which costs a fraction of the messages of ASGI. Every other request, one with a query string included, takes
uvicorn's own way to the ASGI application, whose data plane gives the same answers (a test compares the two).

Stricter and friendlier than uvicorn where hostile or unusual clients meet it:

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
import os
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any, Protocol

import httptools
import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from sluice_gateway.errors import Failure, Problem, problem
from sluice_gateway.native_client import NativeClient
from sluice_gateway.request_ids import RequestIds
from sluice_gateway.response import Envelope, problem_headers
from sluice_gateway.routes import Route

MAX_HEAD_BYTES = 65_536
"""Request line and headers. What came in the read in which the request began is not counted."""

_NOT_HTTP = problem(Failure.INVALID_REQUEST, "The request is not valid HTTP/1.1; check client and proxies.")
_HEAD_TOO_LARGE = msgspec.structs.replace(
    problem(Failure.INVALID_REQUEST, f"The request's headers are larger than {MAX_HEAD_BYTES} bytes."),
    status=431,
)
_HEAD_TIMEOUT = problem(Failure.BODY_TIMEOUT, "The request's headers did not arrive in time; send it again.")
_OFFER = frozenset({b"connection", b"upgrade", b"http2-settings"})


class DataPlane(Protocol):
    """What an application offers this protocol beside ASGI. The front door does."""

    native_routes: Mapping[bytes, Route]
    """By path, as it is in the request line."""
    max_body_bytes: int
    write_timeout_s: float

    async def serve_native(
        self,
        route: Route,
        headers: dict[bytes, bytes],
        server: tuple[str, int | None] | None,
        client: NativeClient,
    ) -> None:
        """Answer one request."""
        ...


_NO_ROUTES: Mapping[bytes, Route] = {}


class HttpProtocol(HttpToolsProtocol):
    """One client's connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._data_plane: DataPlane = self.config.app  # type: ignore[assignment]
        self._routes = getattr(self._data_plane, "native_routes", _NO_ROUTES)
        self._in_head = False
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._cycles: list[RequestResponseCycle | NativeClient] = []
        self._native: NativeClient | None = None
        """The request that is arriving, when it is the data plane's."""
        self._writing_paused = False
        self._idle_since: float | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._stop_head_timer()
        cycles, self._cycles = self._cycles, []
        for cycle in cycles:
            if isinstance(cycle, NativeClient):
                cycle.lost()
            elif not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        if isinstance(self.cycle, NativeClient):
            self.cycle = None  # type: ignore[assignment]
        self._native = None
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._idle_since = None
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
        self.url = b""
        self.expect_100_continue = False
        self.headers = []
        self._in_head, self._head_bytes, self._native = True, 0, None

    def on_headers_complete(self) -> None:
        """A request's head is there: it can be served."""
        self._in_head = False
        self._stop_head_timer()
        if self.parser.should_upgrade():
            return
        route = self._routes.get(self.url)
        if route is not None and self.parser.get_method() == b"POST":
            self._begin_native(route)
        else:
            self._begin_scope()
            super().on_headers_complete()
        if self._cycles:
            self._cycles = [cycle for cycle in self._cycles if not cycle.response_complete]
        self._cycles.append(self.cycle)

    def _begin_scope(self) -> None:
        """uvicorn makes the scope when the message begins; only ASGI needs one."""
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.headers, self.expect_100_continue = url, headers, expects
        self.scope["headers"] = headers

    def _begin_native(self, route: Route) -> None:
        existing = self.cycle
        modern = self.parser.get_http_version() == "1.1"
        headers = dict(self.headers)
        client = NativeClient(
            self.transport,
            self.loop,
            headers,
            keep_alive=modern and self.parser.should_keep_alive(),
            chunked=modern,
            default_headers=self.server_state.default_headers,
            body_limit=self._data_plane.max_body_bytes,
            write_timeout_s=self._data_plane.write_timeout_s,
            on_complete=self.on_response_complete,
        )
        if self._writing_paused:
            client.pause()
        self._native = client
        self.cycle = client  # type: ignore[assignment]
        serve = partial(self._data_plane.serve_native, route, headers, self.server, client)
        if existing is None or existing.response_complete:
            self._start(serve())
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((client, serve))  # type: ignore[arg-type]

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        """A request of the pipeline has its turn."""
        if isinstance(cycle, NativeClient):
            self._start(app())
        else:
            super()._start_asgi_task(cycle, app)

    def _start(self, run: Coroutine[Any, Any, None]) -> None:
        # The pipeline knows every request on its way, and its drain waits for them: uvicorn's own account of
        # tasks would cost a callback a request.
        self.loop.create_task(run)

    def on_body(self, body: bytes) -> None:
        """A piece of a request's body."""
        if self._native is not None:
            self._native.feed(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """A request's last byte."""
        if self._native is not None:
            self._native.end_of_body()
        elif not self.parser.should_upgrade():
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """An answer is complete: the next request of the pipeline, or a wait for one.

        One timer a connection looks now and then whether it has been idle for too long; uvicorn starts and
        cancels one with every request.
        """
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
            return
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._look_whether_idle()

    def _look_whether_idle(self) -> None:
        self.timeout_keep_alive_task = None
        if self._idle_since is None:
            return
        left_s = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left_s <= 0:
            self.timeout_keep_alive_handler()
        else:
            self.timeout_keep_alive_task = self.loop.call_later(left_s, self._look_whether_idle)

    def pause_writing(self) -> None:
        """The client reads more slowly than we write."""
        self._writing_paused = True
        super().pause_writing()
        for cycle in self._cycles:
            if isinstance(cycle, NativeClient):
                cycle.pause()

    def resume_writing(self) -> None:
        """The client caught up."""
        self._writing_paused = False
        super().resume_writing()
        for cycle in self._cycles:
            if isinstance(cycle, NativeClient):
                cycle.resume()

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
    envelope = Envelope(RequestIds(os.urandom).new(), clock, [])
    headers = (*problem_headers(found), *envelope.headers(), (b"content-length", b"%d" % len(body)))
    lines = [b"%b: %b\r\n" % header for header in (*headers, (b"connection", b"close"))]
    return b"".join([STATUS_LINE[found.status], *lines, b"\r\n", body])
