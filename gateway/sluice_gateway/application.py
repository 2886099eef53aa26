"""The ASGI application of a gateway: front door and control plane put together."""

from __future__ import annotations

from sluice_gateway.asgi import FrontDoor
from sluice_gateway.control import build_control
from sluice_gateway.gateway import Gateway


def build_application(gateway: Gateway) -> FrontDoor:
    """What a server runs. Its lifespan starts and stops the gateway."""
    return FrontDoor(gateway, build_control(gateway))
