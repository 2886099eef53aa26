"""`/admin/v1/usage`: the ledger's sums and rows over HTTP.

Authentication is the gate's, the answers are the report's; here one is only translated into the other.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import msgspec
from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel

from sluice_gateway.admin.gate import admin_key
from sluice_gateway.errors import Failure, problem
from sluice_gateway.keys.records import Refused
from sluice_gateway.ledger.question import Question, QuestionError, read_question
from sluice_gateway.ledger.report import DIMENSIONS, MAX_PAGE, CursorError, UsageReport
from sluice_gateway.store.database import UNAVAILABLE

_T = TypeVar("_T")
_TEXT = r"^[^\x00]*$"

_By = Annotated[str, Query(max_length=100, description=f"Any of {', '.join(DIMENSIONS)}, with commas.")]
_Since = Annotated[str, Query(max_length=64, description="7d, 24h, 30m (ago), or an ISO 8601 time.")]
_Until = Annotated[str | None, Query(max_length=64, description="As `since`; not included. Absent: now.")]
_Name = Annotated[str | None, Query(max_length=256, pattern=_TEXT)]
_Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="Entries of one part.")]
_Offset = Annotated[int, Query(ge=0, le=2**31, description="`next_offset` of the part before.")]
_After = Annotated[str | None, Query(max_length=64, description="`next_cursor` of the part before.")]


class UsageSumView(BaseModel):
    """What requests with the same values of the asked dimensions add up to. Times are means."""

    group: dict[str, str]
    requests: int
    failed: int
    from_cache: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    cost: float
    queue_ms: float
    first_token_ms: float | None
    total_ms: float


class UsageSumList(BaseModel):
    """A part of the sums, in the order of their dimensions."""

    data: list[UsageSumView]
    next_offset: int | None


class UsageRecordView(BaseModel):
    """One request."""

    time: str
    request_id: str
    tenant: str
    key: str
    model: str
    backend: str
    endpoint: str
    quant: str
    kind: str
    status: int
    outcome: str
    cache: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    usage_exact: bool
    cost: float
    queue_ms: float
    first_token_ms: float | None
    total_ms: float
    attempts: int
    stream: bool


class UsageRecordList(BaseModel):
    """A part of the requests, newest first."""

    data: list[UsageRecordView]
    next_cursor: str | None


class _Filters:
    """The query parameters that narrow a question down."""

    def __init__(
        self,
        since: _Since = "7d",
        until: _Until = None,
        tenant: _Name = None,
        key: _Name = None,
        model: _Name = None,
        backend: _Name = None,
    ) -> None:
        self._since, self._until = since, until
        self._names = {"tenant": tenant, "key": key, "model": model, "backend": backend}

    def question(self, by: str, now_s: float) -> Question:
        """Raises `Refused`."""
        try:
            return read_question(by, self._since, self._until, self._names, now_s)
        except QuestionError as error:
            raise Refused(problem(Failure.INVALID_REQUEST, str(error))) from None


def usage_router(report: UsageReport, wall_clock: Callable[[], float]) -> APIRouter:
    """The routes. `wall_clock` gives seconds since 1970."""
    router = APIRouter(prefix="/admin/v1/usage", tags=["usage"], dependencies=[Depends(admin_key)])

    @router.get("", summary="What was used and what it cost.", response_model=UsageSumList)
    async def sums(
        filters: Annotated[_Filters, Depends()],
        by: _By = "tenant,model",
        limit: _Limit = 100,
        offset: _Offset = 0,
    ) -> Response:
        asked = filters.question(by, wall_clock())
        return await _answer(report.sums(asked.selection, asked.by, limit=limit, offset=offset))

    @router.get("/requests", summary="Single requests, newest first.", response_model=UsageRecordList)
    async def requests(
        filters: Annotated[_Filters, Depends()], limit: _Limit = 100, after: _After = None
    ) -> Response:
        asked = filters.question("", wall_clock())
        return await _answer(report.requests(asked.selection, limit=limit, after=after))

    return router


async def _answer(asking: Awaitable[_T]) -> Response:
    try:
        return Response(msgspec.json.encode(await asking), media_type="application/json")
    except CursorError as error:
        raise Refused(problem(Failure.INVALID_REQUEST, str(error), param="after")) from None
    except UNAVAILABLE:
        text = "The usage ledger cannot be read now; try again shortly."
        raise Refused(problem(Failure.STORE_UNAVAILABLE, text)) from None
