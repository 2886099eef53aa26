"""The response object: what was asked, echoed, and what has come of it.

Every key that OpenAI's schema requires is there from the first event on, in every status. Source: OpenAI's
API reference, "The response object"; a test holds it against the types of OpenAI's Python SDK.
"""

from __future__ import annotations

from typing import Any

import msgspec

from sluice_gateway.dialects.responses.request import CreateRequest, Format, Item
from sluice_gateway.dialects.responses.tools import echoed_tools
from sluice_gateway.errors import Problem

ResponseObject = dict[str, Any]
FINAL = frozenset({"completed", "incomplete", "failed", "cancelled"})
"""Statuses that do not change any more."""


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """What makes a response this one."""

    id: str
    """`resp_` and hexadecimal digits, from which the items' ids are made."""
    created_at: int
    """Seconds since 1970."""
    first_item: int = 0
    """Number of the first output item: the input items come before."""

    def item_id(self, kind: str, number: int) -> str:
        """The id of this response's item of a type: the response's own digits, and the number."""
        return f"{_PREFIXES.get(kind, 'item')}_{self.id.removeprefix('resp_')}{number:04x}"

    def output_id(self, kind: str, index: int) -> str:
        """The id of the output item at `index`."""
        return self.item_id(kind, self.first_item + index)


_PREFIXES = {"message": "msg", "function_call": "fc", "function_call_output": "fco", "reasoning": "rs"}


def response_of(item_id: str) -> str:
    """The id of the response that an item's id was made for."""
    return f"resp_{item_id.partition('_')[2][:-4]}"


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What has come of a response so far."""

    status: str = "in_progress"
    output: list[Item] = []
    usage: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    incomplete_reason: str | None = None
    service_tier: str | None = None
    """As the engine said; otherwise what was asked."""
    completed_at: int | None = None
    """Seconds since 1970, of a completed response."""


class Echo:
    """Makes response objects for one request."""

    __slots__ = ("_fields", "identity")

    def __init__(self, request: CreateRequest, identity: Identity) -> None:
        self.identity = identity
        self._fields = _echoed(request)

    def object(self, outcome: Outcome) -> ResponseObject:
        """The response with this outcome."""
        reason = outcome.incomplete_reason
        return {
            "id": self.identity.id,
            "object": "response",
            "created_at": self.identity.created_at,
            "completed_at": outcome.completed_at,
            "status": outcome.status,
            **self._fields,
            "error": outcome.error,
            "incomplete_details": {"reason": reason} if reason is not None else None,
            "output": outcome.output,
            "service_tier": outcome.service_tier or self._fields["service_tier"],
            "usage": outcome.usage,
        }


def error_of(found: Problem) -> dict[str, Any]:
    """`error` of a failed response. Its codes are a closed list, so the sentence has to say the rest."""
    if found.status == 429:
        code = "rate_limit_exceeded"
    else:
        code = "invalid_prompt" if found.status < 500 else "server_error"
    return {"code": code, "message": found.message}


def _echoed(request: CreateRequest) -> ResponseObject:
    tier = request.service_tier
    return {
        "background": request.background,
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "max_tool_calls": request.max_tool_calls,
        "metadata": request.metadata,
        "model": request.model,
        "parallel_tool_calls": request.parallel_tool_calls is not False,
        "previous_response_id": request.previous_response_id,
        "prompt_cache_key": request.prompt_cache_key,
        "reasoning": {"effort": request.reasoning.effort, "summary": request.reasoning.summary},
        "safety_identifier": request.safety_identifier,
        "service_tier": "default" if tier in (None, "auto") else tier,
        "store": request.store,
        "temperature": 1.0 if request.temperature is None else request.temperature,
        "text": {"format": _format(request.text.format), "verbosity": request.text.verbosity or "medium"},
        "tool_choice": request.tool_choice,
        "tools": echoed_tools(request.tools),
        "top_logprobs": request.top_logprobs or 0,
        "top_p": 1.0 if request.top_p is None else request.top_p,
        "truncation": request.truncation,
        "user": request.user,
    }


def _format(asked: Format) -> dict[str, Any]:
    if asked.type != "json_schema":
        return {"type": asked.type}
    return {
        "type": "json_schema",
        "name": asked.name or "response",
        "description": asked.description,
        "schema": asked.schema,
        "strict": bool(asked.strict),
    }
