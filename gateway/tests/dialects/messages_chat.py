"""Chat completions answers, whole and in chunks, and Messages requests, for the tests of the dialect."""

from __future__ import annotations

import json
from typing import Any

from sluice_gateway.dialects.messages.translation import MessagesTranslation, translate
from sluice_gateway.errors import Problem

USAGE = {
    "prompt_tokens": 12,
    "completion_tokens": 5,
    "total_tokens": 17,
    "prompt_tokens_details": {"cached_tokens": 8},
}


def request(**fields: Any) -> bytes:
    """The body of a Messages request."""
    return json.dumps(
        {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": "hi"}], **fields}
    ).encode()


def translated(**fields: Any) -> MessagesTranslation:
    found = translate(request(**fields))
    assert not isinstance(found, Problem), found
    return found


def chat_of(**fields: Any) -> dict[str, Any]:
    """The chat request that comes of it."""
    body: dict[str, Any] = json.loads(translated(**fields).body)
    return body


def refused(**fields: Any) -> Problem:
    found = translate(request(**fields))
    assert isinstance(found, Problem)
    assert found.status == 400
    return found


def call(call_id: str | None, name: str, arguments: Any, index: int | None = None) -> dict[str, Any]:
    """A tool call, or the first piece of one."""
    fields = {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
    return fields if index is None else {"index": index, **fields}


def more(index: int, arguments: str) -> dict[str, Any]:
    """A further piece of a call."""
    return {"index": index, "function": {"arguments": arguments}}


def answer(finish_reason: str = "stop", usage: Any = USAGE, choice: Any = None, **message: Any) -> bytes:
    """A whole answer."""
    said = {"role": "assistant", "content": None, **message}
    choices = [{"index": 0, "message": said, "finish_reason": finish_reason, **(choice or {})}]
    return json.dumps(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "model": "engine's",
            "choices": choices,
            "usage": usage,
        }
    ).encode()


def chunk(finish_reason: str | None = None, choice: Any = None, **delta: Any) -> bytes:
    """A chunk of choice 0."""
    choices = [{"index": 0, "delta": delta, "finish_reason": finish_reason, **(choice or {})}]
    return json.dumps({"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": choices}).encode()


ROLE = chunk(role="assistant", content="")
LAST = json.dumps({"id": "chatcmpl-1", "choices": [], "usage": USAGE}).encode()


def streamed(chunks: list[bytes], **fields: Any) -> bytes:
    """The events that these chunks become."""
    translation = translated(stream=True, **fields)
    return b"".join(map(translation.events, chunks)) + translation.end()


def whole(body: bytes, **fields: Any) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(translated(**fields).whole(body))
    return message
