"""`POST /admin/v1/reload`: read the configuration file again.

Authentication is the gate's, the work is the overseer's; here one is only translated into the other.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import APIRouter, Depends
from pydantic import BaseModel

from sluice_gateway.admin.gate import admin_key
from sluice_gateway.config import ConfigError
from sluice_gateway.errors import Failure, problem
from sluice_gateway.keys.records import Refused


class ReloadView(BaseModel):
    """The configuration that is in force now."""

    status: str = "reloaded"
    configuration: int
    """Its number, counted from 1 at the start."""


def reload_router(reload: Callable[[], Awaitable[int]]) -> APIRouter:
    """The route; `reload` is the overseer's."""
    router = APIRouter(prefix="/admin/v1", dependencies=[Depends(admin_key)])

    @router.post(
        "/reload",
        tags=["configuration"],
        summary="Read the configuration file again; with a mistake in it nothing changes.",
        response_model=ReloadView,
    )
    async def reload_configuration() -> ReloadView:
        try:
            return ReloadView(configuration=await reload())
        except ConfigError as error:
            raise Refused(problem(Failure.INVALID_REQUEST, str(error))) from error

    return router
