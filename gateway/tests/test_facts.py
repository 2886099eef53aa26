"""The routing fields, out of whatever a client sends."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice_gateway.errors import Failure, Problem
from sluice_gateway.facts import BodyFacts, Kind, decode

MESSAGES = [{"role": "user", "content": "Hi"}]
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
ROUTING = {
    "model", "messages", "prompt", "input", "stream", "stream_options", "max_tokens",
    "max_completion_tokens", "n", "logprobs", "echo", "tools", "tool_choice", "response_format",
}  # fmt: skip


def facts(kind: Kind = "chat", **fields: Any) -> BodyFacts:
    found = decode(kind, json.dumps({"model": "m", "messages": MESSAGES, **fields}).encode())
    assert isinstance(found, BodyFacts), found
    return found


def refusal(body: bytes, kind: Kind = "chat") -> Problem:
    found = decode(kind, body)
    assert isinstance(found, Problem)
    return found


def test_a_plain_request_needs_nothing_special() -> None:
    found = facts()
    assert (found.model, found.stream, found.needs, found.max_tokens) == ("m", False, frozenset(), None)
    assert found.prompt_tokens_estimate > 0


def test_what_a_request_uses_is_what_it_needs() -> None:
    found = facts(logprobs=True, tools=[{"type": "function"}], n=2, response_format={"type": "json_schema"})
    assert found.needs == {"logprobs", "tools", "multiple_choices", "json_schema"}


TOOLS = [{"type": "function", "function": {"name": "f"}}]
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}


@pytest.mark.parametrize(
    ("fields", "needs"),
    [
        ({"logprobs": False, "tools": [], "n": 1, "response_format": {"type": "text"}}, set()),
        ({"tools": TOOLS, "tool_choice": "auto"}, {"tools"}),
        ({"tools": TOOLS, "tool_choice": None}, {"tools"}),
        ({"tools": TOOLS, "tool_choice": "required"}, {"tools", "tool_calls"}),
        ({"tools": TOOLS, "tool_choice": TOOLS[0]}, {"tools", "tool_calls"}),
        ({"tools": TOOLS, "tool_choice": {"type": 7}}, {"tools"}),
        ({"tools": TOOLS, "tool_choice": {"type": "allowed_tools", "tools": TOOLS}}, {"tools"}),
        ({"tool_choice": "required"}, set()),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}, IMAGE]}]}, {"images"}),
        ({"messages": [{"role": "user", "content": "image_url"}]}, set()),
        ({"messages": [{"role": "user", "content": '{"type": "image_url"}'}]}, set()),
    ],
)
def test_only_what_is_used_is_needed(fields: dict[str, Any], needs: set[str]) -> None:
    assert facts(**fields).needs == needs
    spaced = json.dumps({"model": "m", "messages": MESSAGES, **fields}, indent=1).encode()
    assert getattr(decode("chat", spaced), "needs", None) == needs


def test_an_echo_with_logprobs_needs_those_of_the_prompt() -> None:
    assert facts("completions", prompt="x", echo=True).needs == frozenset()
    assert facts("completions", prompt="x", echo=True, logprobs=0).needs == {"logprobs", "prompt_logprobs"}


def test_legacy_logprobs_are_a_number() -> None:
    found = decode("completions", b'{"model":"m","prompt":"x","logprobs":0}')
    assert isinstance(found, BodyFacts)
    assert found.needs == {"logprobs"}


def test_the_newer_bound_on_the_output_wins() -> None:
    assert facts(max_tokens=5, max_completion_tokens=7).max_tokens == 7


@pytest.mark.parametrize(
    ("options", "include", "there"),
    [(None, False, True), ({}, False, True), ({"include_usage": True}, True, True)],
)
def test_stream_options(options: Any, include: bool, there: bool) -> None:
    found = facts(stream=True, stream_options=options)
    assert (found.include_usage, found.has_stream_options) == (include, there)
    assert not facts(stream=True).has_stream_options


def test_a_longer_prompt_is_estimated_as_more_tokens() -> None:
    assert facts(messages=[{"role": "user", "content": "x" * 4000}]).prompt_tokens_estimate > 1000


@pytest.mark.parametrize(
    ("body", "failure", "param"),
    [
        (b"", Failure.INVALID_JSON, None),
        (b"{", Failure.INVALID_JSON, None),
        (b"[]", Failure.INVALID_JSON, None),
        (b'{"model": "m\xff"}', Failure.INVALID_JSON, None),
        (b'{"model":"m","x":' + b"[" * 100_000, Failure.INVALID_JSON, None),
        (b'{"messages":[]}', Failure.INVALID_REQUEST, "model"),
        (b'{"model":null,"messages":[]}', Failure.INVALID_REQUEST, "model"),
        (b'{"model":"m"}', Failure.INVALID_REQUEST, "messages"),
        (b'{"model":"m","messages":"Hi"}', Failure.INVALID_REQUEST, "messages"),
        (b'{"model":"m","messages":null}', Failure.INVALID_REQUEST, "messages"),
        (b'{"model":7,"messages":[]}', Failure.INVALID_TYPE, "model"),
        (b'{"model":"m","messages":[],"stream":"yes"}', Failure.INVALID_TYPE, "stream"),
        (b'{"model":"m","messages":[],"stream_options":{}}', Failure.INVALID_REQUEST, "stream_options"),
    ],
)
def test_a_mistake_is_named(body: bytes, failure: Failure, param: str | None) -> None:
    found = refusal(body)
    assert (found.failure, found.param, found.status) == (failure, param, 400)


def test_each_kind_has_its_own_content() -> None:
    assert refusal(b'{"model":"m","messages":[]}', "completions").param == "prompt"
    assert refusal(b'{"model":"m"}', "embeddings").param == "input"
    assert isinstance(decode("completions", b'{"model":"m","prompt":[1,2]}'), BodyFacts)


@pytest.mark.parametrize(
    ("kind", "fields", "missing"),
    [
        ("responses", {"input": "Hi"}, "input"),
        ("responses", {"previous_response_id": "resp_1"}, "input"),
        ("messages", {"messages": MESSAGES}, "messages"),
        ("count_tokens", {"messages": MESSAGES}, "messages"),
        ("tokenize", {"prompt": "Hi"}, "prompt"),
        ("tokenize", {"messages": MESSAGES}, "prompt"),
        ("detokenize", {"tokens": [1, 2]}, "tokens"),
        ("rerank", {"query": "q", "documents": ["a", {"text": "b"}], "top_n": 1}, "documents"),
        ("score", {"text_1": "a", "text_2": ["b", "c"]}, "text_1"),
        ("score", {"queries": "a", "documents": ["b"]}, "text_1"),
        ("audio_speech", {"input": "Hi", "voice": "alloy", "response_format": "mp3"}, "input"),
        ("images_generations", {"prompt": "A cat", "n": 4, "response_format": "b64_json"}, "prompt"),
    ],
)
def test_kinds_that_are_passed_through_need_a_model_and_their_content(
    kind: Kind, fields: dict[str, Any], missing: str
) -> None:
    found = decode(kind, json.dumps({"model": "m", **fields}).encode())
    assert isinstance(found, BodyFacts), found
    assert (found.model, found.needs) == ("m", frozenset())
    assert refusal(b'{"model":"m"}', kind).param == missing
    assert refusal(json.dumps(fields).encode(), kind).param == "model"


def test_more_documents_are_more_work() -> None:
    def tokens(documents: list[str]) -> int:
        found = decode("rerank", json.dumps({"model": "m", "documents": documents}).encode())
        assert isinstance(found, BodyFacts)
        return found.prompt_tokens_estimate

    assert tokens(["x" * 400] * 10) > 9 * tokens(["x" * 400]) > 800


@pytest.mark.parametrize(
    ("fields", "stream"),
    [
        ({}, False),
        ({"stream": True}, True),
        ({"stream_format": "sse"}, True),
        ({"stream_format": "audio"}, False),
        ({"stream_format": 7}, False),
    ],
)
def test_speech_is_asked_for_as_events_in_a_way_of_its_own(fields: dict[str, Any], stream: bool) -> None:
    found = decode("audio_speech", json.dumps({"model": "m", "input": "Hi", **fields}).encode())
    assert isinstance(found, BodyFacts)
    assert found.stream is stream


def test_responses_have_a_bound_of_their_own() -> None:
    found = decode("responses", b'{"model":"m","input":"Hi","max_output_tokens":7,"stream":true}')
    assert isinstance(found, BodyFacts)
    assert (found.max_tokens, found.stream) == (7, True)


@settings(max_examples=40)
@given(st.dictionaries(st.text().filter(lambda name: name not in ROUTING), VALUES, max_size=5))
def test_fields_that_are_not_for_routing_change_nothing(others: dict[str, Any]) -> None:
    body = json.dumps({**others, "model": "m", "messages": MESSAGES, "stream": True}).encode()
    assert decode("chat", body) == facts(stream=True)


@settings(max_examples=40)
@given(st.binary() | VALUES.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_give_facts_or_a_400(body: bytes) -> None:
    found = decode("chat", body)
    assert isinstance(found, BodyFacts) or found.status == 400


@settings(max_examples=40)
@given(st.fixed_dictionaries(dict.fromkeys(sorted(ROUTING), VALUES)))
def test_any_values_give_facts_or_a_400(fields: dict[str, Any]) -> None:
    found = decode("chat", json.dumps(fields).encode())
    assert isinstance(found, BodyFacts) or found.status == 400
