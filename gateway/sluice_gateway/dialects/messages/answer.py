"""A whole chat answer as a message: its blocks are thinking, text and calls, in this order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from sluice_gateway.dialects.messages.call_ids import CallIds
from sluice_gateway.dialects.messages.chat import (
    NO_USAGE,
    Said,
    ToolCall,
    decode_chat,
    message_id,
    signature,
    stop_of,
)


def message(body: bytes, model: str, sequences: Sequence[str], shows_thinking: bool) -> bytes:
    """The message. `sequences` are the stop sequences asked for. Raises `ValueError` for another answer."""
    answer = decode_chat(body)
    choice = answer.first
    if choice is None or choice.message is None:
        raise ValueError("there is no message in it")
    said = choice.message
    finish_reason = "content_filter" if said.refusal else choice.finish_reason
    identity = message_id(answer.id, body)
    stop_reason, stop_sequence = stop_of(finish_reason, choice.matched, sequences, bool(said.tool_calls))
    fields = {
        "id": identity,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": _blocks(said, CallIds(identity), shows_thinking),
        "stop_reason": stop_reason,
        "stop_sequence": stop_sequence,
        "usage": (answer.usage or NO_USAGE).as_message(),
    }
    return msgspec.json.encode(fields)


def _blocks(said: Said, ids: CallIds, shows_thinking: bool) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    if said.thoughts and shows_thinking:
        thoughts = said.thoughts
        blocks.append({"type": "thinking", "thinking": thoughts, "signature": signature(thoughts)})
    if said.text:
        blocks.append({"type": "text", "text": said.text})
    return blocks + [_tool_use(call, ids) for call in said.tool_calls or ()]


def _tool_use(call: ToolCall, ids: CallIds) -> dict[str, Any]:
    if not call.function.name:
        raise ValueError("a tool call has no name")
    arguments = parsed(call.function.arguments_text)
    return {"type": "tool_use", "id": ids.of(call.id), "name": call.function.name, "input": arguments}


def parsed(arguments: str) -> msgspec.Raw | dict[str, Any]:
    """A call's input. What is not JSON, as when the answer was cut, is kept under `INVALID_JSON`, the name
    that Anthropic's guide to streamed tool input gives it."""
    if not arguments.strip():
        return {}
    try:
        msgspec.json.decode(arguments)
    except (ValueError, RecursionError):
        return {"INVALID_JSON": arguments}
    return msgspec.Raw(arguments.encode())
