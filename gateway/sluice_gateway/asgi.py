"""The front door: a plain ASGI application that looks a path up in a dict.

Paths of the data plane go straight to the pipeline, and a few that are asked for all the time (health,
metrics, model list) to plain functions; everything else (administration, files, docs) goes to a FastAPI
application. A FastAPI route costs about 110 µs a request, this look-up 3. What all sides share is done here,
once: request id, standard headers, CORS, and OpenAI's error shape for what none of them expected.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable

from sluice_gateway.arrival import Arrival
from sluice_gateway.asgi_client import AsgiClient
from sluice_gateway.errors import Failure, Problem, internal, problem
from sluice_gateway.gateway import Gateway
from sluice_gateway.native_client import NativeClient
from sluice_gateway.plain_paths import PlainPaths, Reply
from sluice_gateway.request_ids import RequestIds
from sluice_gateway.response import WORDS, Envelope, problem_headers
from sluice_gateway.routes import DATA_PLANE, Family, Route, family_of
from sluice_gateway.wire import AsgiWire, Header, Message, Receive, Scope, Send

Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_log = logging.getLogger("sluice")


class FrontDoor:
    """The ASGI application, and what the native protocol serves beside it (`http_protocol.DataPlane`)."""

    def __init__(self, gateway: Gateway, control: Application) -> None:
        """`control` gets what is neither on the data plane nor a plain path."""
        self._gateway = gateway
        self._plain = PlainPaths(gateway)
        self._control = control
        self._ids = RequestIds(os.urandom)
        self.native_routes = {path.encode(): route for path, route in DATA_PLANE.items()}
        self.max_body_bytes = gateway.settings.server.max_body_bytes
        self.write_timeout_s = gateway.settings.server.write_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection's request, or the server's life."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await self._serve(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})

    async def serve_native(
        self,
        route: Route,
        headers: dict[bytes, bytes],
        server: tuple[str, int | None] | None,
        client: NativeClient,
    ) -> None:
        """See `http_protocol.DataPlane`."""
        try:
            await self._gateway.pipeline.serve(
                Arrival(route, headers, server, client, client, self._envelope(headers, route.family))
            )
        except Exception:
            _log.exception("a request failed inside the gateway")
        finally:
            client.cut()

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        route = DATA_PLANE.get(scope["path"])
        family = family_of(scope["path"], headers) if route is None else route.family
        envelope = self._envelope(headers, family)
        if scope["method"] == "OPTIONS" and self._gateway.cors.is_preflight(headers):
            await _send_whole(send, 200, [*self._gateway.cors.preflight(headers), *envelope.headers()], b"")
        elif self._plain.serve(scope["path"]):
            await self._plain_path(scope, headers, send, envelope)
        elif route is None:
            await self._control_plane(scope, receive, send, envelope)
        elif scope["method"] == "POST":
            client = AsgiClient(receive, send, headers, self.write_timeout_s)
            await self._gateway.pipeline.serve(
                Arrival(route, headers, scope.get("server"), client, client, envelope)
            )
        else:
            await _send_problem(send, _wrong_method(scope), envelope, (b"allow", b"POST"))

    def _envelope(self, headers: dict[bytes, bytes], family: Family) -> Envelope:
        gateway = self._gateway
        return Envelope(self._ids.of(headers), gateway.clock, gateway.cors.headers(headers), family)

    async def _plain_path(
        self, scope: Scope, headers: dict[bytes, bytes], send: Send, envelope: Envelope
    ) -> None:
        found: Reply | Problem
        try:
            found = await self._plain.answer(scope["method"], scope["path"], headers, scope.get("server"))
        except Exception:
            _log.exception("request %s failed inside the gateway", envelope.request_id)
            found = internal(envelope.request_id)
        if isinstance(found, Problem):
            await _send_problem(send, found, envelope)
        else:
            content_type = (b"content-type", found.content_type.encode())
            await _send_whole(send, 200, [content_type, *envelope.headers()], found.body)

    async def _control_plane(self, scope: Scope, receive: Receive, send: Send, envelope: Envelope) -> None:
        asked = {"request_id": envelope.request_id, "family": envelope.family}
        scope["state"] = {**scope.get("state", {}), **asked}

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *envelope.headers()]
            await send(message)

        try:
            await self._control(scope, receive, send_with_headers)
        except Exception:
            # Its handlers have answered by now; what is left is to say it in the log.
            _log.exception("request %s failed inside the gateway", envelope.request_id)

    async def _live(self, receive: Receive, send: Send) -> None:
        """ASGI's lifespan: start and stop the gateway with the server."""
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await self._startup(send)
            elif message["type"] == "lifespan.shutdown":
                await self._gateway.aclose()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _startup(self, send: Send) -> None:
        message: Message = {"type": "lifespan.startup.complete"}
        try:
            await self._gateway.start()
        except Exception as error:
            _log.exception("the gateway cannot start")
            message = {"type": "lifespan.startup.failed", "message": str(error)}
        await send(message)


async def _send_whole(send: Send, status: int, headers: list[Header], body: bytes) -> None:
    await AsgiWire(send).whole(status, headers, body)


async def _send_problem(send: Send, found: Problem, envelope: Envelope, *more: Header) -> None:
    head = [*problem_headers(found), *more, *envelope.headers()]
    await _send_whole(send, found.status, head, WORDS[envelope.family].body(found, envelope.request_id))


def _wrong_method(scope: Scope) -> Problem:
    return problem(
        Failure.METHOD_NOT_ALLOWED, f"{scope['path']} does not support {scope['method']}; use POST."
    )
