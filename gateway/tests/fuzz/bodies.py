"""Bodies that are almost what an endpoint wants."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from ..torture.visits import ENDPOINTS, Endpoint, encoded

_NASTY = (
    '"\\ud800"', '"\\udfff\\ud800"', '"\\u0000"', "NaN", "Infinity", "-Infinity", "1e999", "-0", "-0.0",
    "9223372036854775808", "-9223372036854775809", "1" + "0" * 400, "0." + "1" * 400, "1e-400", "01", "+1",
    "'x'", "undefined", "nul", '"\n"', '"\t"', '""', '" "', "[]", "{}", "[[]]", "[{}]", "[null]", "true",
    "null", "3", "-1", "0.5", '"x"', '{"type":"text"}', '[{"type":"text"}]', '[{"type":[]}]', '{"":""}',
    '"' + "x" * 5000 + '"', '"' + "é" * 300 + '"', '"😀"', "[" * 600 + "]" * 600,
    '{"a":' * 600 + "1" + "}" * 600,
)  # fmt: skip
_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False),
    st.text(max_size=20),
    st.sampled_from(["user", "assistant", "system", "tool", "text", "image_url", "function", "m", "echo"]),
)
_FIELDS = (
    "model", "messages", "role", "content", "stream", "stream_options", "max_tokens", "max_completion_tokens",
    "n", "tools", "tool_choice", "tool_calls", "response_format", "type", "text", "input", "prompt",
    "logprobs",
    "top_logprobs", "stop", "temperature", "metadata", "store", "background", "previous_response_id",
    "instructions", "max_output_tokens", "reasoning", "system", "thinking", "stop_sequences", "image_url",
    "id",
    "name", "arguments", "call_id", "output", "tool_use_id", "is_error", "source", "data",
    "truncation",
    "include", "prompt_cache_key", "conversation", "tokens", "documents", "query", "url", "media_type",
    "function", "parameters", "input_schema", "json_schema", "schema", "strict", "format", "effort",
    "include_usage", "service_tier", "top_k", "parallel_tool_calls", "disable_parallel_tool_use",
)  # fmt: skip
VALUES = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(_FIELDS) | st.text(max_size=5), inner, max_size=5)
    ),
    max_leaves=12,
)


class Raw:
    """A piece of text to stand where a value would, JSON or not."""

    def __init__(self, text: str) -> None:
        self.text = text


def dump(value: Any) -> str:
    """JSON, with `Raw` as it is."""
    if isinstance(value, Raw):
        return value.text
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(name)}:{dump(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(dump, value)) + "]"
    return json.dumps(value)


@st.composite
def bodies(draw: st.DrawFn) -> tuple[Endpoint, bytes, bytes]:
    """(endpoint, content type, body)."""
    endpoint = draw(st.sampled_from(ENDPOINTS))
    model = draw(st.sampled_from(["m", "echo"]))
    kind, sound = encoded(endpoint, model, draw(st.booleans()) and endpoint.streams)
    if endpoint.multipart:
        return endpoint, kind.encode(), draw(mangled(sound))
    document = json.loads(sound)
    for _ in range(draw(st.integers(1, 3))):
        document = draw(_changed(document))
    body = dump(document).encode("utf-8", "surrogatepass")
    return endpoint, kind.encode(), draw(mangled(body))


@st.composite
def _changed(draw: st.DrawFn, document: Any) -> Any:
    """One value replaced, added, or taken out."""
    value = draw(VALUES | st.sampled_from(_NASTY).map(Raw))
    if isinstance(document, dict) and document and draw(st.integers(0, 9)):
        name = draw(st.sampled_from(sorted(document)) | st.sampled_from(_FIELDS))
        inner = document.get(name)
        if isinstance(inner, dict | list) and draw(st.booleans()):
            return {**document, name: draw(_changed(inner))}
        if draw(st.integers(0, 7)) == 0:
            return {key: kept for key, kept in document.items() if key != name}
        return {**document, name: value}
    if isinstance(document, list) and document and draw(st.integers(0, 9)):
        place = draw(st.integers(0, len(document) - 1))
        if isinstance(document[place], dict | list) and draw(st.booleans()):
            value = draw(_changed(document[place]))
        return [*document[:place], value, *document[place + draw(st.integers(0, 1)) :]]
    return value


@st.composite
def mangled(draw: st.DrawFn, body: bytes) -> bytes:
    """Mostly as it is; sometimes what happens to bytes on bad ways."""
    way = draw(st.integers(0, 19))
    place = draw(st.integers(0, len(body)))
    if way == 0:
        return b"\xef\xbb\xbf" + body
    if way == 1:
        return body[:place]
    if way == 2:
        return body[:place] + draw(st.binary(max_size=8)) + body[place:]
    if way == 3:
        return body + draw(st.sampled_from([b" ", b"\0", b"{}", b"\n\n", b"]", b"\xff"]))
    if way == 4:
        return body.decode("utf-8", "replace").encode(
            draw(st.sampled_from(["utf-16", "utf-32", "utf-16-le"]))
        )
    if way == 5 and body.startswith(b"{"):
        return body[:-1] + b"," + body[1:]  # every key twice
    return body


def deep(levels: int) -> list[bytes]:
    """Documents that are nested so deeply, in different places."""
    nests = [
        "[" * levels + "]" * levels,
        '{"a":' * levels + "1" + "}" * levels,
        "[" * levels,
        '{"a":[' * levels,
    ]
    wrapped = []
    for nest in nests:
        wrapped += [
            nest,
            f'{{"model":"m","input":{nest},"prompt":{nest},"tokens":{nest},"documents":{nest}}}',
        ]
        wrapped.append(f'{{"model":"m","max_tokens":5,"messages":[{{"role":"user","content":{nest}}}]}}')
        wrapped.append(
            f'{{"model":"m","max_tokens":5,"metadata":{nest},"messages":[{{"role":"user","content":"a"}}]}}'
        )
        wrapped.append(
            f'{{"model":"m","input":"x","store":false,"tools":[{nest}],"text":{nest},"metadata":{nest}}}'
        )
    return [text.encode() for text in wrapped]
