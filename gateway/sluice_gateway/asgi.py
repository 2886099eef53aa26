"""The front door: a plain ASGI application that looks a path up in a dict.

Paths of the data plane go straight to the pipeline; everything else (docs, health, metrics, model list) goes
to a FastAPI application. A FastAPI route costs about 110 µs a request, this look-up 3. What both sides share
is done here, once: request id, standard headers, CORS, and OpenAI's error shape for what neither of them
expected.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from sluice_gateway.cors import CorsPolicy
from sluice_gateway.errors import Failure, Problem, problem
from sluice_gateway.gateway import Gateway
from sluice_gateway.pipeline import Arrival
from sluice_gateway.response import Envelope, Responder, problem_headers, request_id_of
from sluice_gateway.routes import DATA_PLANE
from sluice_gateway.wire import Message, Receive, Scope, Send

Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_log = logging.getLogger("sluice")


class FrontDoor:
    """The ASGI application."""

    def __init__(self, gateway: Gateway, control: Application) -> None:
        """`control` gets what is not on the data plane."""
        self._gateway = gateway
        self._control = control
        self._cors = CorsPolicy(gateway.settings.cors.allow_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection's request, or the server's life."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await self._serve(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        envelope = Envelope(request_id_of(headers), self._gateway.clock, self._cors.headers(headers))
        route = DATA_PLANE.get(scope["path"])
        if scope["method"] == "OPTIONS" and self._cors.is_preflight(headers):
            await Responder(send, envelope).whole(200, b"", self._cors.preflight(headers))
        elif route is None:
            await self._control_plane(scope, receive, send, envelope)
        elif scope["method"] == "POST":
            server = scope.get("server")
            await self._gateway.pipeline.serve(
                route.kind, Arrival(scope["path"], headers, server, receive, send, envelope)
            )
        else:
            found = _wrong_method(scope)
            allow = (*problem_headers(found), (b"allow", b"POST"))
            await Responder(send, envelope).whole(found.status, found.body(), allow)

    async def _control_plane(self, scope: Scope, receive: Receive, send: Send, envelope: Envelope) -> None:
        scope["state"] = {**scope.get("state", {}), "request_id": envelope.request_id}

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
        try:
            await self._gateway.start()
        except Exception as error:
            _log.exception("the gateway cannot start")
            await send({"type": "lifespan.startup.failed", "message": str(error)})
        else:
            await send({"type": "lifespan.startup.complete"})


def _wrong_method(scope: Scope) -> Problem:
    return problem(
        Failure.METHOD_NOT_ALLOWED, f"{scope['path']} does not support {scope['method']}; use POST."
    )
