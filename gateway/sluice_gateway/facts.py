"""What the gateway needs to know of a request's body: the routing fields, decoded once from the original
bytes.

Everything else stays undecoded, and the engine judges it: the gateway must not refuse a parameter that it has
never heard of. `null` counts as absent, as in OpenAI's API. The body itself is never changed here.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from sluice_gateway.errors import Failure, Problem, problem
from sluice_gateway.prompt_size import measure
from sluice_gateway.routes import Kind

BYTES_PER_TOKEN = 4
"""English text; good enough to weigh requests against each other where nobody looks closer."""


class BodyFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The routing fields of one request."""

    model: str
    stream: bool = False
    include_usage: bool = False
    """The client asked for `stream_options.include_usage` itself."""
    has_stream_options: bool = False
    """The body has a `stream_options` key, be it null."""
    prompt_tokens_estimate: int = 0
    script: str = "latin"
    """What the prompt is written in, see `prompt_size.py`."""
    guided: bool = False
    """`response_format` holds the answer to a schema, or to JSON."""
    max_tokens: int | None = None
    needs: frozenset[str] = frozenset()
    """Names of boolean fields of `Capabilities` that the request uses."""
    session: str | None = None
    """`prompt_cache_key`: requests with the same one probably share a prefix."""
    preamble: tuple[msgspec.Raw, ...] = ()
    """What an engine reads before the conversation, as the client wrote it: tools, system prompt."""
    conversation: msgspec.Raw | None = None
    """The messages, or the text to go on with, as the client wrote them. It shares the body's memory."""


_ABSENT = msgspec.Raw(b"null")


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _ResponseFormat(msgspec.Struct):
    type: str | None = None


class _ToolChoice(msgspec.Struct):
    type: str | None = None


class _Head(msgspec.Struct):
    """What every kind has."""

    model: str | None = None
    stream: bool | None = None


class _Body(_Head):
    """Kinds that generate text. `UNSET` is told from null only where the difference matters."""

    messages: msgspec.Raw = _ABSENT
    prompt: msgspec.Raw = _ABSENT
    input: msgspec.Raw = _ABSENT
    stream_options: _StreamOptions | msgspec.UnsetType | None = msgspec.UNSET
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = None
    logprobs: bool | int | None = None
    echo: bool | None = None
    tools: list[msgspec.Raw] | None = None
    tool_choice: msgspec.Raw = _ABSENT
    response_format: _ResponseFormat | None = None
    prompt_cache_key: str | None = None


class _ResponsesBody(_Body):
    """The Responses API names its bound differently, and a stored turn or prompt is content as well."""

    max_output_tokens: int | None = None
    previous_response_id: msgspec.Raw = _ABSENT
    conversation: msgspec.Raw = _ABSENT


class _OtherBody(_Head):
    """Kinds that are passed through: they share field names with the others, not what these mean."""

    messages: msgspec.Raw = _ABSENT
    prompt: msgspec.Raw = _ABSENT
    input: msgspec.Raw = _ABSENT
    tokens: msgspec.Raw = _ABSENT
    documents: msgspec.Raw = _ABSENT
    queries: msgspec.Raw = _ABSENT
    items: msgspec.Raw = _ABSENT
    stream_format: msgspec.Raw = _ABSENT
    """`"sse"` is how speech is asked to come as events."""
    text_1: msgspec.Raw = _ABSENT
    text_2: msgspec.Raw = _ABSENT
    data_1: msgspec.Raw = _ABSENT
    data_2: msgspec.Raw = _ABSENT


class _Shape(msgspec.Struct, frozen=True):
    """What a body of one kind is read as."""

    decoder: msgspec.json.Decoder[Any]
    content: tuple[str, ...]
    """Fields that hold the prompt; one of them has to be there."""
    what: str
    """What the first of them is."""
    is_array: bool = False


_GENERATE = msgspec.json.Decoder(_Body)
_RESPOND = msgspec.json.Decoder(_ResponsesBody)
_OTHER = msgspec.json.Decoder(_OtherBody)
_MESSAGES = _Shape(_GENERATE, ("messages",), "an array of at least one message", is_array=True)
_TEXT = "a string or an array"
_SCORED = ("text_1", "text_2", "queries", "documents", "items", "data_1", "data_2")

_SHAPES: dict[Kind, _Shape] = {
    "chat": _MESSAGES,
    "completions": _Shape(_GENERATE, ("prompt",), _TEXT),
    "embeddings": _Shape(_GENERATE, ("input",), _TEXT),
    "responses": _Shape(_RESPOND, ("input", "previous_response_id", "prompt", "conversation"), _TEXT),
    "messages": _MESSAGES,
    "count_tokens": _MESSAGES,
    "tokenize": _Shape(_OTHER, ("prompt", "messages"), "a string, or 'messages'"),
    "detokenize": _Shape(_OTHER, ("tokens",), "an array of token ids"),
    "rerank": _Shape(_OTHER, ("documents",), "an array"),
    "score": _Shape(_OTHER, _SCORED, _TEXT),
    "audio_speech": _Shape(_OTHER, ("input",), "a string"),
    "images_generations": _Shape(_OTHER, ("prompt",), "a string"),
}
"""The kinds whose bodies are JSON; the others are `multipart`'s to read."""

_NO_NEEDS: frozenset[str] = frozenset()
_ARRAY, _NULL, _OBJECT = b"[n{"
_AS_EVENTS = msgspec.Raw(b'"sse"')
_REQUIRED = msgspec.Raw(b'"required"')
_IMAGE = b'"image_url"'
_IMAGE_PART = re.compile(rb'"type"\s*:\s*"image_url"')
"""Quotes inside a JSON string are escaped: text that merely speaks of images does not look like one."""
_NAMED_TOOLS = ("function", "custom")

NO_MODEL = problem(
    Failure.INVALID_REQUEST,
    "You must provide a 'model'; GET /v1/models lists those available.",
    param="model",
)


def body_type(kind: Kind) -> tuple[type[msgspec.Struct], tuple[str, ...]]:
    """What a JSON body of this kind is decoded into, and the fields of which one has to be there."""
    shape = _SHAPES[kind]
    return shape.decoder.type, shape.content


def decode(kind: Kind, body: bytes) -> BodyFacts | Problem:
    """The facts in a JSON body, or what is wrong with it."""
    shape = _SHAPES[kind]
    try:
        fields = shape.decoder.decode(body)
    except msgspec.ValidationError as error:
        return _wrong_type(str(error))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return problem(Failure.INVALID_JSON, f"The request body is not valid JSON: {error}.")
    except RecursionError:
        return problem(Failure.INVALID_JSON, "The request body is nested too deeply.")
    if not fields.model:
        return NO_MODEL
    content = _content(shape, fields)
    if not content:
        text = f"You must provide '{shape.content[0]}': {shape.what}."
        return problem(Failure.INVALID_REQUEST, text, param=shape.content[0])
    if isinstance(fields, _Body):
        return _facts(fields, content, getattr(fields, shape.content[0]))
    stream = bool(fields.stream) or fields.stream_format == _AS_EVENTS
    size = measure(content)
    return BodyFacts(
        model=fields.model, stream=stream, prompt_tokens_estimate=size.tokens, script=size.script
    )


def _content(shape: _Shape, fields: _Head) -> list[memoryview]:
    """What there is to read for the engine; empty when nothing is, or something of the wrong type."""
    found = []
    for name in shape.content:
        content = memoryview(getattr(fields, name))
        first = content[0]
        if first != _NULL and (first == _ARRAY or not shape.is_array):
            found.append(content)
    return found


def _facts(fields: _Body, content: list[memoryview], conversation: msgspec.Raw) -> BodyFacts | Problem:
    options = fields.stream_options
    if options and not fields.stream:
        return problem(
            Failure.INVALID_REQUEST,
            "'stream_options' is only allowed together with 'stream': true.",
            param="stream_options",
        )
    max_tokens = fields.max_completion_tokens or fields.max_tokens
    if isinstance(fields, _ResponsesBody):
        max_tokens = fields.max_output_tokens
    needs = _needs(fields)
    size = measure(content, with_images="images" in needs)
    shape = fields.response_format
    return BodyFacts(
        model=fields.model or "",
        stream=bool(fields.stream),
        include_usage=isinstance(options, _StreamOptions) and bool(options.include_usage),
        has_stream_options=options is not msgspec.UNSET,
        prompt_tokens_estimate=size.tokens,
        script=size.script,
        guided=shape is not None and shape.type not in (None, "text"),
        max_tokens=max_tokens,
        needs=needs,
        session=fields.prompt_cache_key or None,
        preamble=tuple(fields.tools or ()),
        conversation=conversation,
    )


def _needs(fields: _Body) -> frozenset[str]:
    logprobs = fields.logprobs is not None and fields.logprobs is not False
    wanted: dict[str, Any] = {
        "logprobs": logprobs,
        "prompt_logprobs": logprobs and fields.echo,
        "tools": fields.tools,
        "tool_calls": fields.tools and must_call(fields.tool_choice),
        "images": _has_image(fields.messages),
        "json_schema": fields.response_format is not None and fields.response_format.type == "json_schema",
        "multiple_choices": fields.n is not None and fields.n > 1,
    }
    needs = [name for name, used in wanted.items() if used]
    return frozenset(needs) if needs else _NO_NEEDS


def must_call(choice: msgspec.Raw) -> bool:
    """Whether the answer has to call a tool: any, or the one that is named."""
    if choice == _REQUIRED:
        return True
    if memoryview(choice)[0] != _OBJECT:
        return False
    try:
        return msgspec.json.decode(choice, type=_ToolChoice).type in _NAMED_TOOLS
    except msgspec.ValidationError:
        return False


def _has_image(messages: msgspec.Raw) -> bool:
    """Whether a part of a message is one. The first look is a search for a single byte, and enough for most:
    without a second array there are no parts."""
    raw = bytes(messages)
    return raw.find(_ARRAY, 1) > 0 and _IMAGE in raw and _IMAGE_PART.search(raw) is not None


def _wrong_type(detail: str) -> Problem:
    """msgspec says `Expected `str`, got `int` - at `$.model``; OpenAI clients want the parameter's name."""
    sentence, _, path = detail.partition(" - at `$")
    if not path:
        return problem(Failure.INVALID_JSON, f"The request body must be a JSON object: {sentence}.")
    param = path.rstrip("`").lstrip(".")
    return problem(Failure.INVALID_TYPE, f"Invalid type for '{param}': {sentence}.", param=param)
