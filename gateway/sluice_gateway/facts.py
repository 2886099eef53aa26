"""What the gateway needs to know of a request's body: the routing fields, decoded once from the original
bytes.

Everything else stays undecoded, and the engine judges it: the gateway must not refuse a parameter that it has
never heard of. `null` counts as absent, as in OpenAI's API. The body itself is never changed here.
"""

from __future__ import annotations

from typing import Any

import msgspec

from sluice_gateway.errors import Failure, Problem, problem
from sluice_gateway.routes import Kind

_BYTES_PER_TOKEN = 4
"""English text; good enough to weigh requests against each other."""


class BodyFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The routing fields of one request."""

    model: str
    stream: bool = False
    include_usage: bool = False
    """The client asked for `stream_options.include_usage` itself."""
    has_stream_options: bool = False
    """The body has a `stream_options` key, be it null."""
    prompt_tokens_estimate: int = 0
    max_tokens: int | None = None
    needs: frozenset[str] = frozenset()
    """Names of boolean fields of `Capabilities` that the request uses."""


_ABSENT = msgspec.Raw(b"null")


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _ResponseFormat(msgspec.Struct):
    type: str | None = None


class _Body(msgspec.Struct):
    """Fields common to all kinds. `UNSET` is told from null only where the difference matters."""

    model: str | None = None
    messages: msgspec.Raw = _ABSENT
    prompt: msgspec.Raw = _ABSENT
    input: msgspec.Raw = _ABSENT
    stream: bool | None = None
    stream_options: _StreamOptions | msgspec.UnsetType | None = msgspec.UNSET
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = None
    logprobs: bool | int | None = None
    tools: list[msgspec.Raw] | None = None
    response_format: _ResponseFormat | None = None


_DECODER = msgspec.json.Decoder(_Body)
_CONTENT = {"chat": "messages", "completions": "prompt", "embeddings": "input"}
_NO_NEEDS: frozenset[str] = frozenset()
_ARRAY, _NULL = b"[n"


def decode(kind: Kind, body: bytes) -> BodyFacts | Problem:
    """The facts in a body, or what is wrong with it."""
    try:
        fields = _DECODER.decode(body)
    except msgspec.ValidationError as error:
        return _wrong_type(str(error))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return problem(Failure.INVALID_JSON, f"The request body is not valid JSON: {error}.")
    except RecursionError:
        return problem(Failure.INVALID_JSON, "The request body is nested too deeply.")
    return _missing(kind, fields) or _facts(kind, fields)


def _missing(kind: Kind, fields: _Body) -> Problem | None:
    """What a request of this kind cannot do without."""
    if not fields.model:
        return problem(
            Failure.INVALID_REQUEST,
            "You must provide a 'model'; GET /v1/models lists those available.",
            param="model",
        )
    content = _CONTENT[kind]
    first = memoryview(getattr(fields, content))[0]
    if first == _NULL or (kind == "chat" and first != _ARRAY):
        what = "an array of at least one message" if kind == "chat" else "a string or an array"
        return problem(Failure.INVALID_REQUEST, f"You must provide '{content}': {what}.", param=content)
    if not fields.stream and fields.stream_options:
        return problem(
            Failure.INVALID_REQUEST,
            "'stream_options' is only allowed together with 'stream': true.",
            param="stream_options",
        )
    return None


def _facts(kind: Kind, fields: _Body) -> BodyFacts:
    options = fields.stream_options
    content: msgspec.Raw = getattr(fields, _CONTENT[kind])
    return BodyFacts(
        model=fields.model or "",
        stream=bool(fields.stream),
        include_usage=isinstance(options, _StreamOptions) and bool(options.include_usage),
        has_stream_options=options is not msgspec.UNSET,
        prompt_tokens_estimate=len(memoryview(content)) // _BYTES_PER_TOKEN + 1,
        max_tokens=fields.max_completion_tokens or fields.max_tokens,
        needs=_needs(fields),
    )


def _needs(fields: _Body) -> frozenset[str]:
    wanted: dict[str, Any] = {
        "logprobs": fields.logprobs is not None and fields.logprobs is not False,
        "tools": fields.tools,
        "json_schema": fields.response_format is not None and fields.response_format.type == "json_schema",
        "multiple_choices": fields.n is not None and fields.n > 1,
    }
    needs = [name for name, used in wanted.items() if used]
    return frozenset(needs) if needs else _NO_NEEDS


def _wrong_type(detail: str) -> Problem:
    """msgspec says `Expected `str`, got `int` - at `$.model``; OpenAI clients want the parameter's name."""
    sentence, _, path = detail.partition(" - at `$")
    if not path:
        return problem(Failure.INVALID_JSON, f"The request body must be a JSON object: {sentence}.")
    param = path.rstrip("`").lstrip(".")
    return problem(Failure.INVALID_TYPE, f"Invalid type for '{param}': {sentence}.", param=param)
