"""Every request is served or refused with a 400 that names the parameter; nothing else is possible."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice_worker.server.errors import ApiError
from sluice_worker.server.requests import ChatRequest, CompletionRequest
from sluice_worker.server.validation import decode_chat, decode_completion, stop_strings

CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
COMPLETION: dict[str, Any] = {"model": "m", "prompt": "hi"}


def chat(**fields: Any) -> ChatRequest:
    return decode_chat(json.dumps({**CHAT, **fields}).encode())


def refusal(body: bytes) -> ApiError:
    with pytest.raises(ApiError) as refused:
        decode_chat(body)
    assert refused.value.status == 400
    return refused.value


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("temperature", [0, 2, 0.5, None], [-0.1, 2.1]),
        ("top_p", [1, 0.001, None], [0, 1.1]),
        ("n", [1, 128, None], [0, 129]),
        ("presence_penalty", [-2, 2], [-2.1, 2.1]),
        ("frequency_penalty", [-2, 2], [-2.1, 2.1]),
        ("max_tokens", [1, 10**9, None], [0, -1]),
        ("max_completion_tokens", [1], [0]),
        ("stop", ["a", ["a", "b", "c", "d"], [], None], ["", ["a"] * 5, [""]]),
        ("min_p", [0, 1], [-0.1, 1.1]),
        ("top_k", [-1, 0, 50], [-2]),
        ("repetition_penalty", [0.5, 1], [0, -1]),
        ("min_tokens", [0, 5], [-1]),
        ("seed", [0, -5, 2**63, None], []),
        ("response_format", [{"type": "text"}, None], [{"type": "json_object"}, {"type": "json_schema"}]),
        ("messages", [], [[]]),
        ("stream_options", [None], [{"include_usage": True}]),
    ],
)
def test_values_in_range_are_taken_and_others_name_the_parameter(
    name: str, good: list[Any], bad: list[Any]
) -> None:
    for value in good:
        chat(**{name: value})
    for value in bad:
        error = refusal(json.dumps({**CHAT, name: value}).encode())
        assert error.detail.param == name
        assert error.detail.type == "invalid_request_error"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": "hot"}, "temperature"),
        ({"stream": 1}, "stream"),
        ({"stop": [1]}, "stop[0]"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"logit_bias": {"5": "x"}}, "logit_bias"),
        ({"max_tokens": 1.5}, "max_tokens"),
    ],
)
def test_a_wrong_type_is_reported_with_its_path(fields: dict[str, Any], param: str) -> None:
    error = refusal(json.dumps({**CHAT, **fields}).encode())

    assert error.detail.code == "invalid_type"
    assert error.detail.param == param


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "wizard", "content": "hi"}, "messages[0].role"),
        ({"role": "user", "content": None}, "messages[0].content"),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {}}]},
            "messages[0].content[0].type",
        ),
        ({"role": "user", "content": [{"type": "text"}]}, "messages[0].content[0].text"),
    ],
)
def test_messages_are_checked_one_by_one(message: dict[str, Any], param: str) -> None:
    assert refusal(json.dumps({**CHAT, "messages": [message]}).encode()).detail.param == param


@pytest.mark.parametrize("missing", ["model", "messages"])
def test_a_missing_parameter_is_named(missing: str) -> None:
    body = {name: value for name, value in CHAT.items() if name != missing}

    error = refusal(json.dumps(body).encode())

    assert (error.detail.param, error.detail.code) == (missing, "missing_required_parameter")


@pytest.mark.parametrize(
    "body", [b"", b"{", b"nonsense", b'{"model": "\xff"}', b'{"model": "\\ud800"}', b'{"a":' + b"[" * 100_000]
)
def test_what_is_not_json_is_invalid_json(body: bytes) -> None:
    assert refusal(body).detail.code == "invalid_json"


def test_a_body_that_is_no_object_is_refused() -> None:
    assert "must be a JSON object" in refusal(b"[]").detail.message


def test_unknown_fields_are_ignored_and_newer_names_win() -> None:
    request = chat(
        store=True, metadata={"a": "b"}, user="u", parallel_tool_calls=True, reasoning_effort="low"
    )

    assert request.model == "m"


def test_a_tool_choice_must_be_among_the_tools() -> None:
    tools = [{"type": "function", "function": {"name": "add"}}, {"type": "function"}]

    def choose(choice: Any) -> ApiError:
        return refusal(json.dumps({**CHAT, "tools": tools, "tool_choice": choice}).encode())

    for choice in ("auto", "none", "required", {"type": "function", "function": {"name": "add"}}):
        assert chat(tools=tools, tool_choice=choice).tool_choice == choice
    for choice in ("always", {"type": "function"}, {"type": "function", "function": {"name": "mul"}}):
        assert choose(choice).detail.param == "tool_choice"


def test_top_logprobs_needs_logprobs() -> None:
    assert refusal(json.dumps({**CHAT, "top_logprobs": 3}).encode()).detail.param == "top_logprobs"
    assert chat(logprobs=True, top_logprobs=20).top_logprobs == 20


def completion(**fields: Any) -> CompletionRequest:
    return decode_completion(json.dumps({**COMPLETION, **fields}).encode())


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"suffix": "x"}, "suffix"),
        ({"best_of": 2}, "best_of"),
        ({"logprobs": 21}, "logprobs"),
        ({"max_tokens": 0}, "max_tokens"),
    ],
)
def test_legacy_parameters_that_cannot_be_honoured_are_refused(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(ApiError) as refused:
        completion(**fields)

    assert refused.value.detail.param == param


def test_legacy_parameters_that_change_nothing_are_taken() -> None:
    assert completion(suffix="", best_of=2, n=2, max_tokens=0, echo=True).n == 2
    assert completion(max_tokens=0, echo=True, logprobs=20).logprobs == 20


def test_one_stop_string_may_stand_by_itself() -> None:
    assert stop_strings(chat(stop="a")) == ("a",)
    assert stop_strings(chat()) == ()


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["", "user", "text", "auto", "x"])
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize("name", ["structured_outputs", "guided_json", "guided_regex", "guided_choice"])
def test_constrained_output_is_refused_rather_than_ignored(name: str) -> None:
    found = refusal(json.dumps({**CHAT, name: {"type": "object"}}).encode())

    assert json.loads(found.body())["error"]["param"] == name
    assert json.loads(found.body())["error"]["code"] == "unsupported_parameter"


@given(data=st.data(), kind=st.sampled_from([ChatRequest, CompletionRequest]))
@settings(max_examples=500, deadline=None)
def test_any_json_is_served_or_refused_with_a_400(
    data: st.DataObject, kind: type[ChatRequest | CompletionRequest]
) -> None:
    names = sorted(kind.__struct_fields__)
    valid = CHAT if kind is ChatRequest else COMPLETION
    fields = data.draw(st.dictionaries(st.sampled_from(names), json_values, max_size=4))
    decode = decode_chat if kind is ChatRequest else decode_completion

    try:
        decode(json.dumps({**valid, **fields}).encode())
    except ApiError as error:
        assert error.status == 400
        assert set(msgspec.json.decode(error.body())["error"]) == {"message", "type", "param", "code"}


@given(body=st.binary(max_size=60) | st.text(alphabet='{}[]":,0123e-tfn \\u', max_size=40).map(str.encode))
@settings(max_examples=500, deadline=None)
def test_any_bytes_are_served_or_refused_with_a_400(body: bytes) -> None:
    assert refusal(body).status == 400
