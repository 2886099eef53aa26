"""`/admin/v1/usage`: the ledger's sums and rows, for those who may administer.

Knows of authentication only that a dependency does it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar

import msgspec
from fastapi import APIRouter, Depends, HTTPException, Query, Response

from sluice_gateway.ledger.question import Question, QuestionError, read_question
from sluice_gateway.ledger.report import MAX_PAGE, CursorError, UsageRecords, UsageReport, UsageSums
from sluice_gateway.store.database import UNAVAILABLE

_T = TypeVar("_T")
_DIMENSIONS = "tenant, key, model, backend, quant, kind, day, hour"
_MAX_NAME = 256

_By = Annotated[str, Query(max_length=100, description=f"What to add up by: any of {_DIMENSIONS}.")]
_Time = Annotated[str, Query(max_length=64, description="7d, 24h, 30m (ago), or an ISO 8601 time.")]
_Until = Annotated[str | None, Query(max_length=64, description="Not included. Absent: now.")]
_Name = Annotated[str | None, Query(max_length=_MAX_NAME)]
_Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="Entries on a page.")]
_Offset = Annotated[int, Query(ge=0, le=2**31, description="`next_offset` of the page before.")]
_After = Annotated[str | None, Query(max_length=64, description="`next_cursor` of the page before.")]


class _Filters:
    """The query parameters that narrow a question down."""

    def __init__(
        self,
        since: _Time = "7d",
        until: _Until = None,
        tenant: _Name = None,
        key: _Name = None,
        model: _Name = None,
        backend: _Name = None,
    ) -> None:
        self.since, self.until = since, until
        self.names = {"tenant": tenant, "key": key, "model": model, "backend": backend}

    def question(self, by: str, now_s: float) -> Question:
        """Raises `HTTPException`."""
        if any(name is not None and "\0" in name for name in self.names.values()):
            raise HTTPException(400, "Names have no NUL character.")
        try:
            return read_question(by, self.since, self.until, self.names, now_s)
        except QuestionError as error:
            raise HTTPException(400, str(error)) from None


def usage_router(
    report: UsageReport, require_admin: Callable[..., Any], wall_clock: Callable[[], float]
) -> APIRouter:
    """The routes. `require_admin` is a dependency that raises when the caller may not administer."""
    router = APIRouter(prefix="/admin/v1/usage", tags=["usage"], dependencies=[Depends(require_admin)])

    @router.get("", summary="What was used and what it cost.", response_model=None)
    async def sums(
        filters: Annotated[_Filters, Depends()],
        by: _By = "tenant,model",
        limit: _Limit = 100,
        offset: _Offset = 0,
    ) -> Response:
        asked = filters.question(by, wall_clock())
        return _json(await _ask(lambda: report.sums(asked.selection, asked.by, limit=limit, offset=offset)))

    @router.get("/requests", summary="Single requests, newest first.", response_model=None)
    async def requests(
        filters: Annotated[_Filters, Depends()], limit: _Limit = 100, after: _After = None
    ) -> Response:
        asked = filters.question("", wall_clock())
        return _json(await _ask(lambda: report.requests(asked.selection, limit=limit, after=after)))

    return router


async def _ask(question: Callable[[], Awaitable[_T]]) -> _T:
    try:
        return await question()
    except CursorError as error:
        raise HTTPException(400, str(error)) from None
    except UNAVAILABLE:
        raise HTTPException(503, "The database cannot be read now; try again shortly.") from None


def _json(value: UsageSums | UsageRecords) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")
