"""`/v1/batches`, as in OpenAI's API."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from sluice_gateway.answers import Authenticate, Door, json_answer, list_answer
from sluice_gateway.batches.creation import SCHEMA
from sluice_gateway.batches.service import BatchService
from sluice_gateway.batches.tables import Batch
from sluice_gateway.body import read_body
from sluice_gateway.errors import Failure, Problem, problem
from sluice_gateway.identity import Key

_MAX_BODY_BYTES = 65_536
_BODY = {"requestBody": {"required": True, "content": {"application/json": {"schema": SCHEMA}}}}


def batches_router(service: BatchService, authenticate: Authenticate, body_timeout_s: float) -> APIRouter:
    """The routes."""
    router, door = APIRouter(tags=["batches"]), Door(authenticate)

    @router.post("/v1/batches", summary="Have a file of requests run.", openapi_extra=_BODY)
    async def create(request: Request) -> Response:
        async def work(key: Key) -> Response | Problem:
            headers = dict(request.scope["headers"])
            body = await read_body(request.receive, headers, _MAX_BODY_BYTES, body_timeout_s)
            made = body if isinstance(body, Problem) else await service.create(body, key)
            return _shown(made)

        return await door.answer(request, work)

    @router.get("/v1/batches", summary="The tenant's batches, the newest first.")
    async def page(
        request: Request, limit: Annotated[int, Query(ge=1, le=100)] = 20, after: str | None = None
    ) -> Response:
        async def work(key: Key) -> Response | Problem:
            last = None if after is None else await service.store.get(after, key.tenant)
            if after is not None and last is None:
                return _missing(after, "after")
            found = await service.store.page(key.tenant, after=last, limit=limit)
            return list_answer([batch.to_openai() for batch in found.batches], found.has_more)

        return await door.answer(request, work)

    @router.get("/v1/batches/{batch_id}", summary="One batch.")
    async def retrieve(request: Request, batch_id: str) -> Response:
        async def work(key: Key) -> Response | Problem:
            return _shown(await service.store.get(batch_id, key.tenant) or _missing(batch_id))

        return await door.answer(request, work)

    @router.post("/v1/batches/{batch_id}/cancel", summary="Run no more of a batch.")
    async def cancel(request: Request, batch_id: str) -> Response:
        async def work(key: Key) -> Response | Problem:
            return _shown(await service.cancel(batch_id, key) or _missing(batch_id))

        return await door.answer(request, work)

    return router


def _shown(found: Batch | Problem) -> Response | Problem:
    return found if isinstance(found, Problem) else json_answer(200, found.to_openai())


def _missing(batch_id: str, param: str = "id") -> Problem:
    return problem(Failure.NOT_FOUND, f"No such batch: '{batch_id[:64]}'.", param=param)
