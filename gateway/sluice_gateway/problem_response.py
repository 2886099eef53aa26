"""A problem as the control plane answers it."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response

from sluice_gateway.errors import Problem
from sluice_gateway.response import WORDS, problem_headers


def problem_response(
    found: Problem, more_headers: Mapping[str, str] | None = None, *, request: Request | None = None
) -> Response:
    """Status, headers and OpenAI's error JSON; with the request, the JSON that its family expects."""
    headers = {name.decode(): value.decode() for name, value in problem_headers(found)}
    body = found.body()
    if request is not None:
        body = WORDS[request.state.family].body(found, request.state.request_id)
    return Response(body, found.status, {**headers, **(more_headers or {})})
