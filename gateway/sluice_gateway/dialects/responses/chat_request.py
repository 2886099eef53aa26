"""A Responses request as a chat completions request.

Adjacent items of one assistant turn (reasoning, text, calls) become one assistant message, as the model
wrote them. Instructions and the system and developer messages at the conversation's start become one system
message: most chat templates know neither `developer` nor a second system message.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from sluice_gateway.dialects.responses.problems import invalid, unsupported
from sluice_gateway.dialects.responses.request import CreateRequest, Format, Item
from sluice_gateway.dialects.responses.tools import chat_tools

Message = dict[str, Any]
_SYSTEM = ("system", "developer")
_SAME_NAME = (
    "temperature",
    "top_p",
    "parallel_tool_calls",
    "user",
    "safety_identifier",
    "prompt_cache_key",
    "service_tier",
)
"""Fields that chat completions has under the same name."""


def chat_body(request: CreateRequest, items: Sequence[Item]) -> bytes:
    """The body for `/v1/chat/completions`; `items` is the whole conversation. Raises `Unacceptable`."""
    fields: dict[str, Any] = {"model": request.model, "messages": messages(request.instructions, items)}
    fields.update((name, value) for name in _SAME_NAME if (value := getattr(request, name)) is not None)
    if request.max_output_tokens is not None:
        fields["max_tokens"] = request.max_output_tokens
    if request.reasoning.effort is not None:
        fields["reasoning_effort"] = request.reasoning.effort
    if request.text.verbosity is not None:
        fields["verbosity"] = request.text.verbosity
    if request.wants_logprobs:
        fields["logprobs"], fields["top_logprobs"] = True, request.top_logprobs or 0
    if request.text.format.type != "text":
        fields["response_format"] = _response_format(request.text.format)
    tools = chat_tools(request.tools, request.tool_choice)
    if not tools:
        fields.pop("parallel_tool_calls", None)
    fields.update(tools)
    if request.stream:
        fields["stream"], fields["stream_options"] = True, {"include_usage": True}
    return msgspec.json.encode({**request.extras, **fields})


def messages(instructions: str | None, items: Sequence[Item]) -> list[Message]:
    """The conversation as chat messages. Raises `Unacceptable` when it does not hold together."""
    built: list[Message] = []
    if instructions:
        built.append({"role": "system", "content": instructions})
    called: set[str] = set()
    for item in items:
        if item["type"] == "function_call":
            called.add(item["call_id"])
        elif item["type"] == "function_call_output" and item["call_id"] not in called:
            text = f"No tool call found for function call output with call_id {item['call_id']}."
            raise invalid(text, "input")
        _add(built, item)
    if not built:
        raise invalid("You must provide 'input': a string or an array of at least one item.", "input")
    for message in built:
        if message["content"] is None and "tool_calls" not in message:
            message["content"] = ""
    return built


def _add(built: list[Message], item: Item) -> None:
    kind = item["type"]
    if kind == "function_call_output":
        output = item["output"]
        content = output if isinstance(output, str) else _content(output)
        built.append({"role": "tool", "tool_call_id": item["call_id"], "content": content})
    elif kind == "message" and item["role"] != "assistant":
        _add_message(built, item)
    else:
        _add_to_turn(built, item)


def _add_message(built: list[Message], item: Item) -> None:
    role = "system" if item["role"] in _SYSTEM else item["role"]
    content = _content(item["content"])
    last = built[-1] if len(built) == 1 else None
    if role == "system" and last is not None and last["role"] == "system" and _are_texts(content, last):
        last["content"] = f"{last['content']}\n\n{content}"
    else:
        built.append({"role": role, "content": content})


def _are_texts(content: Any, message: Message) -> bool:
    return isinstance(content, str) and isinstance(message["content"], str)


def _add_to_turn(built: list[Message], item: Item) -> None:
    """Reasoning, text and calls of the assistant go into its message, in the order that a template has."""
    turn = built[-1] if built and _continues(built[-1], item) else None
    if turn is None:
        turn = {"role": "assistant", "content": None}
        built.append(turn)
    if item["type"] == "function_call":
        function = {"name": item["name"], "arguments": item["arguments"]}
        call = {"id": item["call_id"], "type": "function", "function": function}
        turn.setdefault("tool_calls", []).append(call)
    elif item["type"] == "reasoning":
        thoughts = "".join(part["text"] for part in item.get("content") or item["summary"])
        if thoughts:
            turn["reasoning_content"] = turn["reasoning"] = thoughts
    else:
        turn["content"] = "".join(p["text"] for p in item["content"] if p["type"] == "output_text")
        refusal = "".join(p["refusal"] for p in item["content"] if p["type"] == "refusal")
        if refusal:
            turn["refusal"] = refusal


def _continues(last: Message, item: Item) -> bool:
    if last["role"] != "assistant":
        return False
    if item["type"] == "function_call":
        return True
    # A second text, or thoughts after text, is the next turn.
    return last["content"] is None and "tool_calls" not in last and item["type"] == "message"


def _content(parts: list[dict[str, Any]]) -> Any:
    """A lone text as a string, which every engine takes; otherwise a list of parts."""
    if len(parts) == 1 and parts[0]["type"] == "input_text":
        return parts[0]["text"]
    return [_part(part) for part in parts] if parts else ""


def _part(part: dict[str, Any]) -> dict[str, Any]:
    kind = part["type"]
    if kind == "input_text":
        return {"type": "text", "text": part["text"]}
    if kind == "input_image":
        return _image(part)
    if kind == "input_file":
        return _file(part)
    return part


def _image(part: dict[str, Any]) -> dict[str, Any]:
    if "image_url" not in part:
        raise unsupported("Images are taken as 'image_url' (a URL or a data URL), not by 'file_id'.", "input")
    image = {"url": part["image_url"]}
    if part["detail"] != "auto":
        image["detail"] = part["detail"]
    return {"type": "image_url", "image_url": image}


def _file(part: dict[str, Any]) -> dict[str, Any]:
    if "file_url" in part and "file_data" not in part and "file_id" not in part:
        raise unsupported("Files are taken as 'file_data', not by 'file_url'.", "input")
    named = {name: part[name] for name in ("file_data", "file_id", "filename") if name in part}
    return {"type": "file", "file": named}


def _response_format(asked: Format) -> dict[str, Any]:
    if asked.type != "json_schema":
        return {"type": asked.type}
    named = {"name": asked.name or "response", "schema": asked.schema}
    optional = {"description": asked.description, "strict": asked.strict}
    return {
        "type": "json_schema",
        "json_schema": {**named, **{k: v for k, v in optional.items() if v is not None}},
    }
