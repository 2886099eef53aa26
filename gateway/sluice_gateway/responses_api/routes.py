"""The paths around stored responses. `POST /v1/responses` itself is on the data plane."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from starlette.responses import StreamingResponse

from sluice_gateway.answers import Authenticate, Door, json_answer
from sluice_gateway.body import read_body
from sluice_gateway.errors import Problem
from sluice_gateway.identity import Key
from sluice_gateway.responses_api.service import ResponsesService

CountTokens = Callable[[bytes, Key], Awaitable[int | Problem]]
"""Tokens of a chat request's prompt, by the engine that would serve it."""

_STREAM_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}
_NO_BODY: dict[str, Any] = {}


def build_router(
    service: ResponsesService,
    authenticate: Authenticate,
    count_tokens: CountTokens,
    *,
    max_body_bytes: int,
    body_timeout_s: float,
    keep_alive_s: float,
) -> APIRouter:
    """The routes. Each of them sees the responses of the key's tenant only. A stream that is silent for
    `keep_alive_s` gets a comment."""
    router, door = APIRouter(tags=["responses"]), Door(authenticate)
    _add_stored(router, door, service, keep_alive_s)
    _add_actions(router, door, service)

    @router.post(
        "/v1/responses/input_tokens",
        summary="How many tokens a response's input would have.",
        openapi_extra={"requestBody": {"required": True, "content": {"application/json": _NO_BODY}}},
    )
    async def input_tokens(request: Request) -> Response:
        async def work(key: Key) -> Response | Problem:
            headers = dict(request.scope["headers"])
            body = await read_body(request.receive, headers, max_body_bytes, body_timeout_s)
            if isinstance(body, Problem):
                return body
            ask = await service.open(body, key)
            if isinstance(ask, Problem):
                return ask
            count = await count_tokens(ask.turn.chat_body, key)
            if isinstance(count, Problem):
                return count
            return json_answer(200, {"object": "response.input_tokens", "input_tokens": count})

        return await door.answer(request, work)

    return router


def _add_stored(router: APIRouter, door: Door, service: ResponsesService, keep_alive_s: float) -> None:
    @router.get("/v1/responses/{response_id}", summary="A stored response, or its events.")
    async def retrieve(
        request: Request,
        response_id: str,
        stream: bool = False,
        starting_after: Annotated[int, Query(ge=-1)] = -1,
    ) -> Response:
        async def work(key: Key) -> Response | Problem:
            if not stream:
                return _shown(await service.retrieve(response_id, key))
            events = await service.follow(response_id, key, starting_after)
            if isinstance(events, Problem):
                return events
            kept = _kept_alive(events, keep_alive_s)
            return StreamingResponse(kept, media_type="text/event-stream", headers=_STREAM_HEADERS)

        return await door.answer(request, work)

    @router.get("/v1/responses/{response_id}/input_items", summary="What a response was an answer to.")
    async def input_items(
        request: Request,
        response_id: str,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        order: Literal["asc", "desc"] = "desc",
        after: str | None = None,
    ) -> Response:
        async def work(key: Key) -> Response | Problem:
            newest_first = order == "desc"
            return _shown(
                await service.input_items(
                    response_id, key, limit=limit, newest_first=newest_first, after=after
                )
            )

        return await door.answer(request, work)


def _add_actions(router: APIRouter, door: Door, service: ResponsesService) -> None:
    @router.delete("/v1/responses/{response_id}", summary="Forget a response.")
    async def delete(request: Request, response_id: str) -> Response:
        async def work(key: Key) -> Response | Problem:
            return _shown(await service.delete(response_id, key))

        return await door.answer(request, work)

    @router.post("/v1/responses/{response_id}/cancel", summary="Stop a background response.")
    async def cancel(request: Request, response_id: str) -> Response:
        async def work(key: Key) -> Response | Problem:
            return _shown(await service.cancel(response_id, key))

        return await door.answer(request, work)


def _shown(found: dict[str, Any] | Problem) -> Response | Problem:
    return found if isinstance(found, Problem) else json_answer(200, found)


async def _kept_alive(events: AsyncIterator[bytes], silence_s: float) -> AsyncIterator[bytes]:
    """The events, and a comment whenever there was none for a while: proxies cut silent connections."""
    pending: asyncio.Future[bytes] | None = None
    try:
        while True:
            pending = pending or asyncio.ensure_future(anext(events))
            done, _ = await asyncio.wait((pending,), timeout=silence_s)
            if not done:
                yield b": keep-alive\n\n"
                continue
            try:
                piece = pending.result()
            except StopAsyncIteration:
                return
            pending = None
            yield piece
    finally:
        if pending is not None:
            pending.cancel()
            with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration):
                await pending
