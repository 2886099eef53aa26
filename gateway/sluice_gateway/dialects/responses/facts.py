"""What the gateway needs to know of a Responses request before it knows the conversation it continues.

The same routing fields as `sluice_gateway.facts`, under this API's names. A stored history is not counted
here; `ResponseAsk.facts` has it.
"""

from __future__ import annotations

import msgspec

from sluice_gateway.dialects.responses.problems import NO_MODEL, not_json, wrong_type
from sluice_gateway.errors import Failure, Problem, problem
from sluice_gateway.facts import BodyFacts, must_call

BYTES_PER_TOKEN = 4
"""English text; good enough to weigh requests against each other."""

LOGPROBS = "message.output_text.logprobs"
"""The value of `include` that asks for log probabilities."""

_ABSENT = msgspec.Raw(b"null")
_IMAGE = b'"input_image"'


class _Format(msgspec.Struct):
    type: str | None = None


class _Text(msgspec.Struct):
    format: _Format | None = None


class _Body(msgspec.Struct):
    model: str | None = None
    input: msgspec.Raw = _ABSENT
    instructions: msgspec.Raw = _ABSENT
    stream: bool | None = None
    max_output_tokens: int | None = None
    tools: list[msgspec.Raw] | None = None
    tool_choice: msgspec.Raw = _ABSENT
    text: _Text | None = None
    include: list[str] | None = None


_DECODER = msgspec.json.Decoder(_Body)


def decode(body: bytes) -> BodyFacts | Problem:
    """The facts in a body, or what is wrong with it."""
    try:
        fields = _DECODER.decode(body)
    except msgspec.ValidationError as error:
        return wrong_type(error)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return not_json(error)
    if not fields.model:
        return NO_MODEL
    if fields.max_output_tokens is not None and fields.max_output_tokens < 1:
        text = "'max_output_tokens' must be at least 1."
        return problem(Failure.INVALID_REQUEST, text, param="max_output_tokens")
    return BodyFacts(
        model=fields.model,
        stream=bool(fields.stream),
        prompt_tokens_estimate=(len(fields.input) + len(fields.instructions)) // BYTES_PER_TOKEN + 1,
        max_tokens=fields.max_output_tokens,
        needs=_needs(fields),
    )


def _needs(fields: _Body) -> frozenset[str]:
    text_format = fields.text.format if fields.text is not None else None
    wanted = {
        "tools": bool(fields.tools),
        "tool_calls": bool(fields.tools) and must_call(fields.tool_choice),
        "json_schema": text_format is not None and text_format.type == "json_schema",
        "images": _IMAGE in bytes(fields.input),
        "logprobs": LOGPROBS in (fields.include or ()),
    }
    return frozenset(name for name, used in wanted.items() if used)
