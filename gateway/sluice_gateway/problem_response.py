"""A problem as the control plane answers it."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import Response

from sluice_gateway.errors import Problem
from sluice_gateway.response import problem_headers


def problem_response(found: Problem, more_headers: Mapping[str, str] | None = None) -> Response:
    """Status, headers and OpenAI's error JSON."""
    headers = {name.decode(): value.decode() for name, value in problem_headers(found)}
    return Response(found.body(), found.status, {**headers, **(more_headers or {})})
