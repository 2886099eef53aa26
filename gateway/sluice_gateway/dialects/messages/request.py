"""A Messages request as a chat completions request.

Fields that mean the same in both keep the client's bytes; so do those that are in neither API's reference,
as engines have extras of their own (`top_k`, `min_p`, `chat_template_kwargs`, ...). Fields that only
Anthropic's service can honour are dropped when the answer is as good without them (cache hints, service
tiers), and refused when it is not (containers, MCP servers, server tools). Names that chat completions have
for what this API words otherwise are refused, so that one setting has one source.

`thinking` turns the template's switch (`enable_thinking`, and `thinking` as some call it) on when `enabled`
and off when `disabled`; `adaptive` leaves it to the model. `budget_tokens` is not passed on: `max_tokens`
bounds thinking and answer together.
"""

from __future__ import annotations

from typing import Any

import msgspec

from sluice_gateway.dialects.messages.conversation import chat_messages, take_prefill
from sluice_gateway.dialects.messages.refusal import invalid, unsupported
from sluice_gateway.dialects.messages.schema import ABSENT, Request, Tool, ToolChoice

_TRANSLATED = frozenset(Request.__struct_fields__)
_DROPPED = frozenset(
    {
        "anthropic_beta",
        "anthropic_version",
        "betas",
        "billing_policy",
        "cache_control",
        "compaction",
        "context_management",
        "diagnostics",
        "fallback_credit_token",
        "fallbacks",
        "inference_geo",
        "service_tier",
        "speed",
        "user_profile_id",
        "workspace_id",
    }
)
_REFUSED = {
    "container": "containers run on Anthropic's servers only.",
    "mcp_servers": "the engine cannot call MCP servers; run the tools yourself and send them as 'tools'.",
    "thread": "the gateway keeps no threads; send the whole conversation.",
    "stop": "use 'stop_sequences'.",
    "max_completion_tokens": "use 'max_tokens'.",
    "response_format": "use 'output_config.format'.",
    "functions": "use 'tools'.",
    "function_call": "use 'tool_choice'.",
    "parallel_tool_calls": "use 'tool_choice.disable_parallel_tool_use'.",
    "stream_options": "usage is always part of the stream.",
    "n": "this API gives one answer.",
    "logprobs": "this API has no place for log-probabilities.",
    "top_logprobs": "this API has no place for log-probabilities.",
}
_EMPTY = (b"null", b"[]", b"{}")

_EFFORTS = {"low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}
_NO_CHOICE_WITHOUT_TOOLS = ("any", "tool")
_TEMPLATE_OPTIONS = msgspec.json.Decoder(dict[str, msgspec.Raw] | None)


def chat_body(request: Request, fields: dict[str, msgspec.Raw]) -> dict[str, Any]:
    """The chat request, ready to be encoded. `fields` are the top-level fields as they were sent.

    Raises `Untranslatable`.
    """
    if not request.messages:
        raise invalid("messages", "at least one message is required.")
    body: dict[str, Any] = {"model": request.model}
    body |= _passed_on(fields)
    body["messages"] = chat_messages(request.system, request.messages)
    if take_prefill(body["messages"]):
        body |= {"continue_final_message": True, "add_generation_prompt": False}
    _set_bounds(request, body)
    _set_tools(request, body)
    _set_output(request, body)
    if request.thinking is not None and request.thinking.type in ("enabled", "disabled"):
        body["chat_template_kwargs"] = _with_thinking(body, request.thinking.type == "enabled")
    if request.metadata is not None and request.metadata.user_id:
        body["user"] = request.metadata.user_id
    if request.stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return body


def count_body(request: Request, fields: dict[str, msgspec.Raw]) -> dict[str, Any]:
    """What an engine's tokenizer is asked, for the tokens that `chat_body` would cost."""
    body = chat_body(request, fields)
    for name in ("max_tokens", "stop", "stream", "stream_options", "user"):
        body.pop(name, None)
    body.setdefault("add_generation_prompt", True)
    return body


def _passed_on(fields: dict[str, msgspec.Raw]) -> dict[str, msgspec.Raw]:
    passed = {}
    for name, value in fields.items():
        if name in _REFUSED:
            if bytes(value) not in _EMPTY:
                raise unsupported(name, _REFUSED[name])
        elif name not in _TRANSLATED and name not in _DROPPED:
            passed[name] = value
    return passed


def _set_bounds(request: Request, body: dict[str, Any]) -> None:
    if request.max_tokens is not None:
        if request.max_tokens < 1:
            raise invalid("max_tokens", "must be at least 1.")
        body["max_tokens"] = request.max_tokens
    if request.stop_sequences:
        body["stop"] = request.stop_sequences


def _set_tools(request: Request, body: dict[str, Any]) -> None:
    tools, choice = request.tools, request.tool_choice
    if not tools:
        if choice is not None and choice.type in _NO_CHOICE_WITHOUT_TOOLS:
            raise invalid("tool_choice", f"'{choice.type}' needs 'tools'.")
        return
    body["tools"] = [_tool(tool, index) for index, tool in enumerate(tools)]
    if choice is not None:
        body["tool_choice"] = _tool_choice(choice, tools)
        if choice.disable_parallel_tool_use is not None:
            body["parallel_tool_calls"] = not choice.disable_parallel_tool_use


def _tool(tool: Tool, index: int) -> dict[str, Any]:
    if tool.type not in (None, "custom"):
        raise unsupported(
            f"tools[{index}].type",
            f"'{tool.type[:50]}' is a tool of Anthropic's own, which this engine does not have. "
            "Send tools with an 'input_schema'.",
        )
    if tool.input_schema == ABSENT:
        raise invalid(f"tools[{index}].input_schema", "is required.")
    function: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    function["parameters"] = tool.input_schema
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _tool_choice(choice: ToolChoice, tools: list[Tool]) -> str | dict[str, Any]:
    if choice.type != "tool":
        return "required" if choice.type == "any" else choice.type
    if choice.name not in [tool.name for tool in tools]:
        raise invalid("tool_choice.name", "is not the name of one of 'tools'.")
    return {"type": "function", "function": {"name": choice.name}}


def _set_output(request: Request, body: dict[str, Any]) -> None:
    config = request.output_config
    shape = request.output_format if config is None or config.format is None else config.format
    if shape is not None:
        schema = {"name": "output", "schema": shape.schema, "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    if config is not None and config.effort is not None:
        if config.effort not in _EFFORTS:
            raise invalid("output_config.effort", f"must be one of {', '.join(_EFFORTS)}.")
        body["reasoning_effort"] = _EFFORTS[config.effort]


def _with_thinking(body: dict[str, Any], wanted: bool) -> dict[str, Any]:
    """The template's options, in which what the client set itself wins."""
    try:
        given = _TEMPLATE_OPTIONS.decode(body.get("chat_template_kwargs", ABSENT))
    except msgspec.ValidationError:
        raise invalid("chat_template_kwargs", "must be an object.") from None
    return {"enable_thinking": wanted, "thinking": wanted, **(given or {})}
