"""What routes of the control plane share: who is asking, and answers in OpenAI's shape."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec
from fastapi import Request, Response

from sluice_gateway.errors import Failure, Problem, problem
from sluice_gateway.identity import Key
from sluice_gateway.problem_response import problem_response
from sluice_gateway.store.database import UNAVAILABLE

_log = logging.getLogger("sluice")

Authenticate = Callable[[Request], Key | Problem]
Work = Callable[[Key], Awaitable[Response | Problem]]


def json_answer(status: int, value: Any) -> Response:
    """A value as JSON."""
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def list_answer(items: Sequence[Mapping[str, Any]], has_more: bool) -> Response:
    """A part of a list; each item has an `id`."""
    first, last = (items[0]["id"], items[-1]["id"]) if items else (None, None)
    page = {"object": "list", "data": items, "first_id": first, "last_id": last, "has_more": has_more}
    return json_answer(200, page)


class Door:
    """Lets those in who have a key, and says so when database or disk are away."""

    def __init__(self, authenticate: Authenticate) -> None:
        self._authenticate = authenticate

    async def answer(self, request: Request, work: Work) -> Response:
        """What `work` has to say to the request's key."""
        key = self._authenticate(request)
        if isinstance(key, Problem):
            return problem_response(key)
        try:
            found = await work(key)
        except UNAVAILABLE as error:
            _log.error("request %s: the store failed: %s", request.state.request_id, error)
            text = "What is stored cannot be reached now; try again shortly."
            return problem_response(problem(Failure.STORE_UNAVAILABLE, text))
        return problem_response(found) if isinstance(found, Problem) else found
