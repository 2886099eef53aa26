"""The body of `POST /v1/responses`, checked.

`null` counts as absent, as in OpenAI's API. A field that this API does not know is kept in `extras` and
goes on to the engine (`top_k`, `seed`, `chat_template_kwargs`, ...), which judges it. Input items stay
plain JSON objects: `input_items.py` knows them. Source: OpenAI's API reference, "Create a model response".
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from sluice_gateway.dialects.responses.facts import LOGPROBS
from sluice_gateway.dialects.responses.problems import (
    NO_MODEL,
    Unacceptable,
    not_json,
    unsupported,
    wrong_type,
)
from sluice_gateway.dialects.responses.tools import check_choice, check_tools
from sluice_gateway.errors import Failure, Problem, problem

Item = dict[str, Any]
"""One input or output item, as JSON."""

Count = Annotated[int, Meta(ge=1)]
_Key = Annotated[str, Meta(max_length=64)]
_Value = Annotated[str, Meta(max_length=512)]

_ELSEWHERE = {
    "conversation": "send 'previous_response_id', or the conversation's items as 'input'",
    "prompt": "send the prompt's text as 'instructions' and 'input'",
}
"""Fields that refer to what is kept at OpenAI, and what to do instead."""


class Format(msgspec.Struct, frozen=True, kw_only=True):
    """`text.format`: the shape asked of the answer's text."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    name: str | None = None
    description: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None


class Text(msgspec.Struct, frozen=True, kw_only=True):
    """`text`: what the answer's text is to be like."""

    format: Format = Format()
    verbosity: Literal["low", "medium", "high"] | None = None


class Reasoning(msgspec.Struct, frozen=True, kw_only=True):
    """`reasoning`: how much of it."""

    effort: str | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None


class CreateRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request. Fields have OpenAI's names and defaults."""

    model: str = ""
    input: str | list[Item] | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    store: bool = True
    background: bool = False
    stream: bool = False
    stream_options: dict[str, Any] | None = None
    max_output_tokens: Count | None = None
    max_tool_calls: Count | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    include: list[str] = []
    tools: list[dict[str, Any]] = []
    tool_choice: str | dict[str, Any] = "auto"
    parallel_tool_calls: bool | None = None
    text: Text = Text()
    reasoning: Reasoning = Reasoning()
    metadata: Annotated[dict[_Key, _Value], Meta(max_length=16)] = {}
    truncation: Literal["auto", "disabled"] = "disabled"
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    service_tier: str | None = None
    extras: dict[str, Any] = {}
    """Fields that this API does not know."""

    @property
    def wants_logprobs(self) -> bool:
        """Whether output text comes with log probabilities."""
        return LOGPROBS in self.include or bool(self.top_logprobs)


_KNOWN = frozenset(CreateRequest.__struct_encode_fields__) - {"extras"}
_NOT_FOR_ENGINES = frozenset(
    {"extras", "context_management", "moderation", "prompt_cache_options", "prompt_cache_retention"}
)
"""Wishes to OpenAI's own service. Without meaning elsewhere, and harmless to leave out."""


def parse(body: bytes) -> CreateRequest | Problem:
    """The request in a body, or what is wrong with it."""
    try:
        fields = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return not_json(error)
    if not isinstance(fields, dict):
        return problem(Failure.INVALID_JSON, "The request body must be a JSON object.")
    present = {name: value for name, value in fields.items() if value is not None}
    try:
        return _checked(present)
    except msgspec.ValidationError as error:
        return wrong_type(error)
    except Unacceptable as error:
        return error.found


def _checked(present: dict[str, Any]) -> CreateRequest:
    for name in ("text", "reasoning"):
        if isinstance(present.get(name), dict):
            present[name] = {k: v for k, v in present[name].items() if v is not None}
    known = {name: value for name, value in present.items() if name in _KNOWN}
    request = msgspec.convert(known, CreateRequest)
    extras = {k: v for k, v in present.items() if k not in _KNOWN and k not in _NOT_FOR_ENGINES}
    for name, instead in _ELSEWHERE.items():
        if name in extras:
            raise unsupported(f"'{name}' is not supported by this server; {instead}.", name)
    _check(request)
    return msgspec.structs.replace(request, extras=extras)


def _check(request: CreateRequest) -> None:
    """What types alone cannot say."""
    if not request.model:
        raise Unacceptable(NO_MODEL)
    if request.input is None and request.previous_response_id is None:
        text = "You must provide 'input': a string or an array of items."
        raise Unacceptable(problem(Failure.INVALID_REQUEST, text, param="input"))
    if request.stream_options is not None and not request.stream:
        text = "'stream_options' is only allowed together with 'stream': true."
        raise Unacceptable(problem(Failure.INVALID_REQUEST, text, param="stream_options"))
    if request.background and not request.store:
        text = "'background' needs the response to be stored; leave out 'store': false."
        raise Unacceptable(problem(Failure.INVALID_REQUEST, text, param="background"))
    if request.text.format.type == "json_schema" and request.text.format.schema is None:
        text = "You must provide 'text.format.schema' with type 'json_schema'."
        raise Unacceptable(problem(Failure.INVALID_REQUEST, text, param="text.format.schema"))
    check_tools(request.tools)
    check_choice(request.tool_choice, request.tools)
