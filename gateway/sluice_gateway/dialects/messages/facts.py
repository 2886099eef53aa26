"""What the gateway needs to know of a Messages request, for routing and limits.

Like `sluice_gateway.facts`, it reads the routing fields only and refuses nothing that an engine which speaks
the dialect might know. Images are weighed by what they cost a model, not by their bytes.
"""

from __future__ import annotations

from typing import Any

import msgspec

from sluice_gateway.dialects.messages.refusal import from_json_error, invalid
from sluice_gateway.errors import Problem
from sluice_gateway.facts import NO_MODEL, BodyFacts
from sluice_gateway.prompt_size import BYTES_PER_TOKEN, script_of

_ABSENT = msgspec.Raw(b"null")
_ARRAY = ord("[")
_IMAGE_TOKENS = 1600
"""What the API's reference gives for the largest image that is not scaled down."""


class _Format(msgspec.Struct):
    type: str | None = None


class _OutputConfig(msgspec.Struct):
    format: _Format | None = None


class _ToolChoice(msgspec.Struct):
    type: str | None = None


class _Body(msgspec.Struct):
    model: str | None = None
    messages: msgspec.Raw = _ABSENT
    system: msgspec.Raw = _ABSENT
    tools: list[msgspec.Raw] | None = None
    tool_choice: _ToolChoice | None = None
    max_tokens: int | None = None
    stream: bool | None = None
    output_config: _OutputConfig | None = None
    output_format: _Format | None = None


BODY: type[msgspec.Struct] = _Body
"""What a body is decoded into."""

_DECODER = msgspec.json.Decoder(_Body)


def decode(body: bytes) -> BodyFacts | Problem:
    """The facts in a request of kind `messages`, or what is wrong with it."""
    found = _decode(body)
    if isinstance(found, BodyFacts) and found.max_tokens is None:
        return invalid("max_tokens", "is required.").problem
    return found


def decode_count(body: bytes) -> BodyFacts | Problem:
    """The same for `count_tokens`, which generates nothing."""
    found = _decode(body)
    if isinstance(found, BodyFacts):
        return msgspec.structs.replace(found, stream=False, max_tokens=None)
    return found


def _decode(body: bytes) -> BodyFacts | Problem:
    try:
        fields = _DECODER.decode(body)
        images, image_bytes = _images(fields.messages)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return from_json_error(error).problem
    if not fields.model:
        return NO_MODEL
    if memoryview(fields.messages)[0] != _ARRAY:
        return invalid("messages", "is required: an array of at least one message.").problem
    preamble = (*(fields.tools or ()), fields.system)
    text_bytes = sum(len(memoryview(raw)) for raw in (fields.messages, *preamble)) - image_bytes
    script = "images" if images else script_of(memoryview(fields.messages))
    return BodyFacts(
        model=fields.model,
        stream=bool(fields.stream),
        prompt_tokens_estimate=int(text_bytes / BYTES_PER_TOKEN[script]) + 1 + images * _IMAGE_TOKENS,
        script=script,
        max_tokens=fields.max_tokens,
        needs=_needs(fields, images),
        preamble=preamble,
        conversation=fields.messages,
    )


def _needs(fields: _Body, images: int) -> frozenset[str]:
    config, choice = fields.output_config, fields.tool_choice
    shape = (config.format if config is not None else None) or fields.output_format
    wanted = {
        "tools": bool(fields.tools),
        "tool_calls": bool(fields.tools) and choice is not None and choice.type in ("any", "tool"),
        "images": images > 0,
        "json_schema": shape is not None and shape.type == "json_schema",
    }
    return frozenset(name for name, used in wanted.items() if used)


def _images(messages: msgspec.Raw) -> tuple[int, int]:
    """How many images there are, and how many bytes of the body they take.

    The word in quotes is a JSON string of its own, which text that merely speaks of images does not hold
    (its quotes are escaped): most requests end here.
    """
    raw = bytes(messages)
    if b'"image"' not in raw:
        return 0, 0
    return _images_in(msgspec.json.decode(raw))


def _images_in(value: Any) -> tuple[int, int]:
    """Images in messages, and in the results and documents inside them."""
    if isinstance(value, list):
        found = [_images_in(item) for item in value]
        return sum(count for count, _ in found), sum(size for _, size in found)
    if not isinstance(value, dict):
        return 0, 0
    source = value.get("source")
    if value.get("type") == "image":
        data = source.get("data") if isinstance(source, dict) else None
        return 1, len(data) if isinstance(data, str) else 0
    inner = source.get("content") if isinstance(source, dict) else None
    count, size = _images_in(value.get("content"))
    more, more_size = _images_in(inner)
    return count + more, size + more_size
