"""What the scripted engine says, as OpenAI's, Jina's and Cohere's APIs say it."""

from __future__ import annotations

import base64
import struct
from typing import Any

USAGE = {
    "prompt_tokens": 21,
    "completion_tokens": 9,
    "total_tokens": 30,
    "prompt_tokens_details": {"cached_tokens": 8},
    "completion_tokens_details": {"reasoning_tokens": 0},
}
FORECAST = "It is sunny in Oslo and in Bergen."
STRUCTURED = '{"name": "Ada", "age": 36}'
TOOL_CALLS = [
    {
        "id": f"call_{city}",
        "type": "function",
        "function": {"name": "get_weather", "arguments": f'{{"city": "{city}"}}'},
    }
    for city in ("Oslo", "Bergen")
]
VECTOR = [0.25, -0.5, 1.0, 0.125]
RANKED = {
    "id": "rerank-1",
    "model": "scripted",
    "results": [
        {"index": 1, "relevance_score": 0.9, "document": {"text": "Paris is a capital."}},
        {"index": 0, "relevance_score": 0.1, "document": {"text": "Bread is baked."}},
    ],
    "usage": {"total_tokens": 12},
}
SCORED = {
    "id": "score-1",
    "object": "list",
    "model": "scripted",
    "data": [{"index": 0, "object": "score", "score": 0.75}],
    "usage": {"prompt_tokens": 5, "total_tokens": 5},
}
SOUND = b"ID3\x04\x00\xff\xfb\r\n--boundary\r\n\x00" * 200
TRANSCRIPTION = {"text": "Hello there.", "usage": {"type": "duration", "seconds": 2}}
PIXELS = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
IMAGES = {"created": 1_700_000_000, "data": [{"b64_json": PIXELS}], "usage": {"total_tokens": 7}}
IMAGE_EVENTS = (
    (
        "image_generation.partial_image",
        {"type": "image_generation.partial_image", "partial_image_index": 0, "b64_json": PIXELS},
    ),
    ("image_generation.completed", {"type": "image_generation.completed", "b64_json": PIXELS}),
)


def failure(status: int) -> dict[str, Any]:
    """An error as an engine words it."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": f"The engine says {status}.", "type": kind, "param": None, "code": None}}


def completion(**message: Any) -> dict[str, Any]:
    """A whole chat completion."""
    reason = "tool_calls" if "tool_calls" in message else "stop"
    said = {"role": "assistant", "content": None, **message}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "scripted",
        "choices": [{"index": 0, "message": said, "logprobs": None, "finish_reason": reason}],
        "usage": USAGE,
    }


def chunk(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    """One event of a streamed one."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
    return {**_chunk_head(), "choices": [choice]}


def chunks(*, usage: bool, content: str = "", tool_calls: Any = ()) -> list[dict[str, Any]]:
    """All of them: text word by word, arguments in pieces, names once."""
    events = [chunk({"role": "assistant", "content": "" if content else None})]
    events += [chunk({"content": piece}) for piece in _pieces(content)]
    for index, call in enumerate(tool_calls):
        function = call["function"]
        head = {**call, "index": index, "function": {**function, "arguments": ""}}
        events.append(chunk({"tool_calls": [head]}))
        events += [
            chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
            for piece in _pieces(function["arguments"])
        ]
    events.append(chunk({}, "tool_calls" if tool_calls else "stop"))
    return [*events, {**_chunk_head(), "choices": [], "usage": USAGE}] if usage else events


def embeddings(count: int, encoding: str) -> dict[str, Any]:
    """Vectors as floats, or as base64 of little-endian 32-bit floats."""
    packed = base64.b64encode(struct.pack(f"<{len(VECTOR)}f", *VECTOR)).decode()
    vector = packed if encoding == "base64" else VECTOR
    data = [{"object": "embedding", "index": index, "embedding": vector} for index in range(count)]
    usage = {"prompt_tokens": 3, "total_tokens": 3}
    return {"object": "list", "model": "scripted", "data": data, "usage": usage}


def _chunk_head() -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": "scripted",
    }


def _pieces(text: str) -> list[str]:
    return [text[start : start + 5] for start in range(0, len(text), 5)]
