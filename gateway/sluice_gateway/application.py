"""The ASGI application of a gateway: front door and control plane put together."""

from __future__ import annotations

import asyncio

from sluice_gateway.asgi import Application, FrontDoor
from sluice_gateway.gateway import Gateway
from sluice_gateway.wire import Receive, Scope, Send


def build_application(gateway: Gateway) -> FrontDoor:
    """What a server runs. Its lifespan starts and stops the gateway."""
    return FrontDoor(gateway, LateControl(gateway))


class LateControl:
    """The control plane, loaded for the first request that needs it: many processes never do.

    Loading takes half a second, in a thread, so that requests on the data plane go on meanwhile. Whoever asks
    during that time waits for the one that is being loaded.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._loading: asyncio.Future[Application] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See `asgi.Application`."""
        if self._loading is None:
            self._loading = asyncio.ensure_future(asyncio.to_thread(_load, self._gateway))
        # Shielded, so that one who goes away does not take the others' control plane along.
        control = await asyncio.shield(self._loading)
        await control(scope, receive, send)


def _load(gateway: Gateway) -> Application:
    from sluice_gateway.control import build_control

    return build_control(gateway)
