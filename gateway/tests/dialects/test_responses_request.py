"""What clients may ask for, and what engines are asked then."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice_gateway.dialects.responses import facts
from sluice_gateway.dialects.responses.chat_request import chat_body
from sluice_gateway.dialects.responses.problems import Unacceptable
from sluice_gateway.dialects.responses.request import parse
from sluice_gateway.errors import Problem
from sluice_gateway.facts import BodyFacts

from .responses_events import items_of, request_of

TOOL = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True}
OTHER = {"type": "function", "name": "g"}
NESTED = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, "strict": True}}
USER = {"role": "user", "content": "hi"}
CALL = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
CHAT_CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def asked(**fields: Any) -> dict[str, Any]:
    """The chat request that a Responses request becomes."""
    request = request_of(**fields)
    found: dict[str, Any] = json.loads(chat_body(request, items_of(request.input)))
    return found


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, {}),
        ({"max_output_tokens": 9}, {"max_tokens": 9}),
        ({"temperature": 0, "top_p": 0.5}, {"temperature": 0.0, "top_p": 0.5}),
        ({"temperature": None, "tools": None, "store": None, "text": None}, {}),
        ({"reasoning": {"effort": "low", "summary": None}}, {"reasoning_effort": "low"}),
        ({"text": {"verbosity": "low", "format": None}}, {"verbosity": "low"}),
        ({"text": {"format": {"type": "text"}}}, {}),
        ({"text": {"format": {"type": "json_object"}}}, {"response_format": {"type": "json_object"}}),
        (
            {"text": {"format": {"type": "json_schema", "name": "n", "schema": {"a": 1}, "strict": True}}},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "n", "schema": {"a": 1}, "strict": True},
                }
            },
        ),
        ({"tools": [TOOL]}, {"tools": [NESTED], "tool_choice": "auto"}),
        (
            {"tools": [TOOL], "parallel_tool_calls": False, "tool_choice": "required"},
            {"tools": [NESTED], "parallel_tool_calls": False, "tool_choice": "required"},
        ),
        (
            {"tools": [TOOL], "tool_choice": {"type": "function", "name": "f"}},
            {"tools": [NESTED], "tool_choice": {"type": "function", "function": {"name": "f"}}},
        ),
        (
            {
                "tools": [TOOL, OTHER],
                "tool_choice": {
                    "type": "allowed_tools",
                    "mode": "required",
                    "tools": [{"type": "function", "name": "f"}],
                },
            },
            {"tools": [NESTED], "tool_choice": "required"},
        ),
        ({"parallel_tool_calls": True}, {}),
        ({"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}),
        ({"include": ["message.output_text.logprobs"]}, {"logprobs": True, "top_logprobs": 0}),
        ({"top_logprobs": 2}, {"logprobs": True, "top_logprobs": 2}),
        ({"user": "u", "service_tier": "flex"}, {"user": "u", "service_tier": "flex"}),
        ({"top_k": 5, "chat_template_kwargs": {"x": 1}}, {"top_k": 5, "chat_template_kwargs": {"x": 1}}),
        (
            {
                "store": False,
                "metadata": {"a": "b"},
                "truncation": "auto",
                "include": ["reasoning.encrypted_content"],
                "max_tool_calls": 3,
                "prompt_cache_retention": "24h",
            },
            {},
        ),
    ],
)
def test_parameters(given: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert asked(**given) == {"model": "m", "messages": [USER], **wanted}


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("hi", [USER]),
        ([{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}], [USER]),
        ([{"role": "user", "content": [{"type": "text", "text": "hi"}]}], [USER]),
        (
            [{"role": "developer", "content": "a"}, {"role": "system", "content": "b"}, USER],
            [{"role": "system", "content": "a\n\nb"}, USER],
        ),
        ([USER, {"role": "developer", "content": "c"}], [USER, {"role": "system", "content": "c"}]),
        (
            [
                {
                    "role": "user",
                    "content": [
                        {"type": "input_text", "text": "a"},
                        {"type": "input_image", "image_url": "data:,", "detail": "low"},
                        {"type": "input_file", "file_data": "data:,", "filename": "f.pdf"},
                        {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}},
                    ],
                }
            ],
            [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "a"},
                        {"type": "image_url", "image_url": {"url": "data:,", "detail": "low"}},
                        {"type": "file", "file": {"file_data": "data:,", "filename": "f.pdf"}},
                        {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}},
                    ],
                }
            ],
        ),
        (
            [
                {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
                {"role": "assistant", "content": [{"type": "output_text", "text": "so"}]},
                CALL,
                {"type": "function_call_output", "call_id": "c1", "output": "1"},
            ],
            [
                {
                    "role": "assistant",
                    "content": "so",
                    "reasoning_content": "hm",
                    "reasoning": "hm",
                    "tool_calls": [CHAT_CALL],
                },
                {"role": "tool", "tool_call_id": "c1", "content": "1"},
            ],
        ),
        (
            [CALL, {"type": "function_call_output", "call_id": "c1", "output": {"a": 1}}],
            [
                {"role": "assistant", "content": None, "tool_calls": [CHAT_CALL]},
                {"role": "tool", "tool_call_id": "c1", "content": '{"a": 1}'},
            ],
        ),
        (
            [{"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "s"}]}, USER],
            [{"role": "assistant", "content": "", "reasoning_content": "s", "reasoning": "s"}, USER],
        ),
        (
            [{"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}],
            [{"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}],
        ),
        (
            [{"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}],
            [{"role": "assistant", "content": "", "refusal": "no"}],
        ),
    ],
)
def test_input_items(given: Any, wanted: list[dict[str, Any]]) -> None:
    assert asked(input=given)["messages"] == wanted


def test_instructions_come_first() -> None:
    assert asked(instructions="be brief")["messages"] == [{"role": "system", "content": "be brief"}, USER]


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"model": None}, "model", "must provide a 'model'"),
        ({"model": 3}, "model", "Expected `str`"),
        ({"input": None}, "input", "must provide 'input'"),
        ({"input": []}, "input", "at least one item"),
        ({"input": 3}, "input", "Expected"),
        ({"input": ["hi"]}, "input[0]", "Expected `object`"),
        ({"temperature": 3}, "temperature", "<= 2"),
        ({"top_p": -1}, "top_p", ">= 0"),
        ({"top_logprobs": 21}, "top_logprobs", "<= 20"),
        ({"max_output_tokens": 0}, "max_output_tokens", ">= 1"),
        ({"metadata": {str(n): "" for n in range(17)}}, "metadata", "length <= 16"),
        ({"metadata": {"a": "x" * 513}}, "metadata", "length <= 512"),
        ({"metadata": {"a" * 65: ""}}, "metadata", "length <= 64"),
        ({"metadata": {"a": 1}}, "metadata", "Expected `str`"),
        ({"truncation": "some"}, "truncation", "Invalid enum"),
        ({"stream_options": {}}, "stream_options", "together with 'stream'"),
        ({"background": True, "store": False}, "background", "stored"),
        ({"conversation": "conv_1"}, "conversation", "previous_response_id"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt", "instructions"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", "'web_search'"),
        ({"tools": [TOOL, {"type": "mcp"}]}, "tools[1].type", "'mcp'"),
        ({"tools": [{"type": "function"}]}, "tools[0].name", "'name'"),
        ({"tools": [{**TOOL, "parameters": [1]}]}, "tools[0].parameters", "JSON schema"),
        ({"tool_choice": "sometimes"}, "tool_choice", "one of"),
        ({"tool_choice": "required"}, "tool_choice", "needs 'tools'"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "name": "x"}}, "tool_choice", "'x'"),
        ({"tool_choice": {"type": "file_search"}}, "tool_choice.type", "'file_search'"),
        ({"tool_choice": {"type": "allowed_tools", "mode": "x"}}, "tool_choice.mode", "'auto'"),
        (
            {"tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": 1}},
            "tool_choice.tools",
            "array",
        ),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format.schema", "schema"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type", "Invalid enum"),
        ({"input": [{"type": "web_search_call", "id": "ws_1"}]}, "input[0].type", "'web_search_call'"),
        ({"input": [{"content": "x"}]}, "input[0].type", "'None'"),
        ({"input": [{"role": "critic", "content": "x"}]}, "input[0].role", "one of"),
        ({"input": [{"role": "user", "content": 1}]}, "input[0].content", "string or an array"),
        ({"input": [{"role": "user", "content": ["x"]}]}, "input[0].content[0]", "object"),
        ({"input": [{"role": "user", "content": [{"type": "video"}]}]}, "input[0].content[0].type", "video"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
            "input[0].content[0]",
            "one of",
        ),
        ({"input": [{"role": "assistant", "content": [{"type": "x"}]}]}, "input[0].content[0].type", "'x'"),
        ({"input": [{"type": "function_call", "name": "f"}]}, "input[0].call_id", "string"),
        ({"input": [{"type": "reasoning", "summary": "x"}]}, "input[0].summary", "array"),
        ({"input": [{"type": "function_call_output", "call_id": "c9"}]}, "input", "c9"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "file_1"}]}]},
            "input",
            "file_id",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_file", "file_url": "http://x"}]}]},
            "input",
            "file_url",
        ),
    ],
)
def test_refusals_name_the_parameter(fields: dict[str, Any], param: str, words: str) -> None:
    found = refusal(json.dumps({"model": "m", "input": "hi", **fields}).encode())
    assert found is not None
    assert (found.status, found.type, found.param) == (400, "invalid_request_error", param)
    assert words in found.message


def refusal(body: bytes) -> Problem | None:
    request = parse(body)
    if isinstance(request, Problem):
        return request
    try:
        chat_body(request, items_of(request.input))
    except Unacceptable as error:
        return error.found
    return None


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"3", b'"x"', b"\xff", b"[" * 100_000])
def test_what_is_no_json_object_is_said_to_be_none(body: bytes) -> None:
    for found in (parse(body), facts.decode(body)):
        assert isinstance(found, Problem)
        assert (found.status, found.code) == (400, "invalid_json")


def test_facts_are_the_routing_fields() -> None:
    image = {"type": "input_image", "image_url": "data:,"}
    fields = {
        "model": "m",
        "input": [{"role": "user", "content": [image]}],
        "stream": True,
        "max_output_tokens": 7,
        "tools": [TOOL],
        "text": {"format": {"type": "json_schema"}},
        "include": [facts.LOGPROBS],
    }
    found = facts.decode(json.dumps(fields).encode())
    assert isinstance(found, BodyFacts)
    assert (found.model, found.stream, found.max_tokens) == ("m", True, 7)
    assert found.needs == {"tools", "json_schema", "images", "logprobs"}
    assert found.prompt_tokens_estimate > 20


@pytest.mark.parametrize(
    ("fields", "param"),
    [({}, "model"), ({"model": 1}, "model"), ({"model": "m", "max_output_tokens": 0}, "max_output_tokens")],
)
def test_facts_refuse_what_cannot_be_routed(fields: dict[str, Any], param: str) -> None:
    found = facts.decode(json.dumps(fields).encode())
    assert isinstance(found, Problem)
    assert found.param == param


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "message", "user", "x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "role", "content", "text", "name", "id", "tools"]), inner)
    ),
    max_leaves=8,
)
FIELDS = st.dictionaries(
    st.sampled_from(
        [
            "input",
            "instructions",
            "tools",
            "tool_choice",
            "text",
            "reasoning",
            "metadata",
            "include",
            "stream",
        ]
    ),
    JSON,
)


@given(FIELDS)
def test_any_request_is_read_or_refused(fields: dict[str, Any]) -> None:
    body = json.dumps({"model": "m", **fields}).encode()
    found = refusal(body)
    assert found is None or found.status == 400
    assert isinstance(facts.decode(body), BodyFacts | Problem)
