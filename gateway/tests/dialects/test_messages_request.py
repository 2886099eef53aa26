"""A Messages request in the words of chat completions."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice_gateway.dialects.messages.translation import translate, translate_count
from sluice_gateway.errors import Failure, Problem

from .messages_chat import chat_of, refused, request

TEXT = {"type": "text", "text": "Look"}
PNG = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
PNG_PART = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}
LINK = {"type": "image", "source": {"type": "url", "url": "https://a.example/b.png"}}
LINK_PART = {"type": "image_url", "image_url": {"url": "https://a.example/b.png"}}
USE = {"type": "tool_use", "id": "toolu_a", "name": "f", "input": {"x": 1}}
CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
TOOL = {"name": "f", "description": "Does.", "input_schema": {"type": "object"}}
PDF = {"type": "base64", "media_type": "application/pdf", "data": "JVBE"}


def user(*blocks: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks)}


def assistant(*blocks: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": list(blocks)}


def result(content: Any = "sunny", **more: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": "toolu_a", "content": content, **more}


def document(source: Any, **more: Any) -> dict[str, Any]:
    return {"type": "document", "source": source, **more}


def tool_message(text: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": "a", "content": text}


def said(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


HI = said("hi")


@pytest.mark.parametrize(
    ("messages", "chat"),
    [
        ([HI], [HI]),
        ([user(TEXT)], [said("Look")]),
        ([user(TEXT, TEXT)], [said("Look\nLook")]),
        ([user(TEXT, PNG, LINK)], [said([TEXT, PNG_PART, LINK_PART])]),
        ([user({**TEXT, "cache_control": {"type": "ephemeral"}})], [said("Look")]),
        # Two messages of one role are one turn.
        ([HI, user(PNG)], [said([{"type": "text", "text": "hi"}, PNG_PART])]),
        (
            [HI, assistant(TEXT), {"role": "assistant", "content": "!"}, HI],
            [HI, {"role": "assistant", "content": "Look!"}, HI],
        ),
        # Calls and their results.
        (
            [HI, assistant(TEXT, USE), user(result())],
            [HI, {"role": "assistant", "content": "Look", "tool_calls": [CALL]}, tool_message("sunny")],
        ),
        (
            [HI, assistant(USE), user(result([TEXT, TEXT], is_error=True), TEXT)],
            [
                HI,
                {"role": "assistant", "content": None, "tool_calls": [CALL]},
                tool_message("Error: Look\nLook"),
                said("Look"),
            ],
        ),
        # A result's images come after all results, before what the user says.
        (
            [user(result([TEXT, PNG]), result(None), TEXT)],
            [tool_message("Look"), tool_message(""), said([PNG_PART, TEXT])],
        ),
        ([user(TEXT, result(), TEXT)], [said("Look"), tool_message("sunny"), said("Look")]),
        # Thinking.
        (
            [HI, assistant({"type": "thinking", "thinking": "Hm.", "signature": "s"}, TEXT), HI],
            [
                HI,
                {"role": "assistant", "content": "Look", "reasoning_content": "Hm.", "reasoning": "Hm."},
                HI,
            ],
        ),
        (
            [HI, assistant({"type": "redacted_thinking", "data": "x"}, TEXT), HI],
            [HI, {"role": "assistant", "content": "Look"}, HI],
        ),
        # Documents and search results.
        (
            [
                user(
                    document(
                        {"type": "text", "media_type": "text/plain", "data": "Body"}, title="T", context="C"
                    )
                )
            ],
            [said("T\nC\nBody")],
        ),
        (
            [user(document({"type": "content", "content": [TEXT, PNG]}))],
            [said([TEXT, PNG_PART])],
        ),
        ([user(document({"type": "content", "content": "Body"}))], [said("Body")]),
        (
            [user(document(PDF))],
            [
                said(
                    [
                        {
                            "type": "file",
                            "file": {
                                "filename": "document.pdf",
                                "file_data": "data:application/pdf;base64,JVBE",
                            },
                        }
                    ]
                )
            ],
        ),
        (
            [user({"type": "search_result", "source": "s", "title": "T", "content": [TEXT]})],
            [said("T\ns\nLook")],
        ),
        # A system message between turns.
        (
            [HI, {"role": "system", "content": "Be kind."}, HI],
            [HI, {"role": "system", "content": "Be kind."}, HI],
        ),
    ],
)
def test_a_conversation_keeps_its_order(messages: list[Any], chat: list[Any]) -> None:
    assert chat_of(messages=messages)["messages"] == chat


def test_the_system_prompt_is_the_first_message() -> None:
    first = {"role": "system", "content": "Be brief."}

    assert chat_of(system="Be brief.")["messages"] == [first, HI]
    assert chat_of(system=[{"type": "text", "text": "Be brief."}])["messages"] == [first, HI]
    assert chat_of(system=[TEXT, TEXT])["messages"][0]["content"] == "Look\nLook"
    assert chat_of(system="")["messages"] == [HI]


def test_a_tools_input_keeps_its_bytes() -> None:
    body = request(messages=[HI, assistant(USE), user(result())]).replace(
        b'{"x": 1}', b'{"x":1.50,  "y":1e3}'
    )
    found = translate(body)
    assert not isinstance(found, Problem)

    calls = json.loads(found.body)["messages"][1]["tool_calls"]

    assert calls[0]["function"]["arguments"] == '{"x":1.50,  "y":1e3}'


def test_a_last_message_of_the_assistant_is_the_beginning_of_the_answer() -> None:
    chat = chat_of(messages=[HI, assistant({"type": "text", "text": "The answer is ("})])

    assert chat["messages"][-1] == {"role": "assistant", "content": "The answer is ("}
    assert chat["continue_final_message"] is True
    assert chat["add_generation_prompt"] is False


def test_an_empty_beginning_is_none() -> None:
    chat = chat_of(messages=[HI, {"role": "assistant", "content": ""}])

    assert chat["messages"] == [HI]
    assert "continue_final_message" not in chat


@pytest.mark.parametrize(
    ("fields", "chat"),
    [
        ({}, {"max_tokens": 100}),
        ({"stop_sequences": ["a", "b"]}, {"stop": ["a", "b"]}),
        ({"temperature": 0.5, "top_p": 0.9, "top_k": 40}, {"temperature": 0.5, "top_p": 0.9, "top_k": 40}),
        ({"min_p": 0.1, "seed": 4, "an_extra": {"a": 1}}, {"min_p": 0.1, "seed": 4, "an_extra": {"a": 1}}),
        ({"metadata": {"user_id": "u"}}, {"user": "u"}),
        ({"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}),
        (
            {"tools": [TOOL]},
            {
                "tools": [
                    {
                        "type": "function",
                        "function": {
                            "name": "f",
                            "description": "Does.",
                            "parameters": {"type": "object"},
                        },
                    }
                ]
            },
        ),
        ({"tools": [TOOL], "tool_choice": {"type": "auto"}}, {"tool_choice": "auto"}),
        ({"tools": [TOOL], "tool_choice": {"type": "any"}}, {"tool_choice": "required"}),
        ({"tools": [TOOL], "tool_choice": {"type": "none"}}, {"tool_choice": "none"}),
        (
            {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "f"}},
            {"tool_choice": {"type": "function", "function": {"name": "f"}}},
        ),
        (
            {"tools": [TOOL], "tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
            {"tool_choice": "auto", "parallel_tool_calls": False},
        ),
        (
            {"output_config": {"effort": "max", "format": {"type": "json_schema", "schema": {"a": 1}}}},
            {
                "reasoning_effort": "high",
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "output", "schema": {"a": 1}, "strict": True},
                },
            },
        ),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 1024}},
            {"chat_template_kwargs": {"enable_thinking": True, "thinking": True}},
        ),
        (
            {"thinking": {"type": "disabled"}, "chat_template_kwargs": {"thinking": 1, "a": 2}},
            {"chat_template_kwargs": {"enable_thinking": False, "thinking": 1, "a": 2}},
        ),
    ],
)
def test_fields_are_said_in_chats_words(fields: dict[str, Any], chat: dict[str, Any]) -> None:
    assert chat_of(**fields).items() >= chat.items()


def test_what_has_no_meaning_for_an_engine_is_dropped() -> None:
    plain = chat_of()

    without_meaning: dict[str, Any] = {
        "cache_control": {"type": "ephemeral"},
        "service_tier": "auto",
        "context_management": {"edits": []},
        "thinking": {"type": "adaptive"},
        "tool_choice": {"type": "auto"},
        "container": None,
        "mcp_servers": [],
        "stop_sequences": [],
        "metadata": {},
        "system": None,
    }
    for name, value in without_meaning.items():
        assert chat_of(**{name: value}) == plain, name


def test_the_strictness_of_a_tool_stays() -> None:
    tool = {**TOOL, "type": "custom", "strict": True, "cache_control": {"type": "ephemeral"}}

    function = chat_of(tools=[tool])["tools"][0]["function"]

    assert function == {
        "name": "f",
        "description": "Does.",
        "parameters": {"type": "object"},
        "strict": True,
    }


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "5"}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "nobody", "content": "a"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [HI, assistant(USE)]}, "messages"),
        ({"messages": [HI, assistant(PNG), HI]}, "messages"),
        ({"messages": [user(USE)]}, "messages"),
        ({"messages": [HI, assistant({**USE, "input": "x"}), user(result())]}, "messages"),
        ({"messages": [user(document({**PDF, "media_type": "text/html"}))]}, "messages"),
        ({"messages": [user({"type": "web_search_tool_result"})]}, "messages[0].content[0].type"),
        (
            {"messages": [user({"type": "image", "source": {"type": "file", "file_id": "x"}})]},
            "messages[0].content[0].source.type",
        ),
        ({"tools": [TOOL, {"type": "web_search_20250305", "name": "web_search"}]}, "tools[1].type"),
        ({"tools": [{"name": "f"}]}, "tools[0].input_schema"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "g"}}, "tool_choice.name"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"output_config": {"effort": "immense"}}, "output_config.effort"),
        ({"output_config": {"format": {"type": "regex"}}}, "output_config.format.type"),
        ({"thinking": {"type": "enabled"}, "chat_template_kwargs": 3}, "chat_template_kwargs"),
        ({"mcp_servers": [{"type": "url", "url": "u", "name": "n"}]}, "mcp_servers"),
        ({"container": "c"}, "container"),
        ({"stop": ["a"]}, "stop"),
        ({"n": 2}, "n"),
        ({"stop_sequences": "a"}, "stop_sequences"),
    ],
)
def test_what_cannot_be_said_names_the_field(fields: dict[str, Any], param: str) -> None:
    found = refused(**fields)

    assert found.param == param
    assert param in found.message


@pytest.mark.parametrize("body", [b"", b"nope", b"\xff", b'{"a":' * 50_000, b"[]", b"3"])
def test_what_is_no_request_is_refused(body: bytes) -> None:
    for found in (translate(body), translate_count(body)):
        assert isinstance(found, Problem)
        assert found.failure in (Failure.INVALID_JSON, Failure.INVALID_TYPE)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ("messages", "system", "tools", "tool_choice", "thinking", "metadata", "output_config", "stop", "x")


@given(st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=4))
@settings(max_examples=200, deadline=None)
def test_anything_is_translated_or_refused(fields: dict[str, Any]) -> None:
    found = translate(request(**fields))

    assert isinstance(found, Problem) or json.loads(found.body)["model"] == "m"


@pytest.mark.parametrize(
    "messages",
    [[HI], [HI, assistant(USE), user(result(), TEXT)], [HI, {"role": "assistant", "content": "A"}]],
)
def test_tokens_are_counted_of_the_very_prompt_that_would_be_sent(messages: list[Any]) -> None:
    fields = {
        "messages": messages,
        "system": "Be brief.",
        "tools": [TOOL],
        "tool_choice": {"type": "none"},
        "thinking": {"type": "enabled", "budget_tokens": 1024},
    }
    sent = chat_of(**fields, stop_sequences=["a"], stream=True, metadata={"user_id": "u"})

    counting = translate_count(json.dumps({"model": "m", **fields}).encode())

    assert not isinstance(counting, Problem)
    assert counting.path == "/tokenize"
    asked = json.loads(counting.body)
    prefilled = messages[-1]["role"] == "assistant"
    assert asked.pop("add_generation_prompt") is not prefilled
    assert {name: sent[name] for name in asked} == asked
    assert set(sent) - set(asked) - {"add_generation_prompt"} == {
        "max_tokens",
        "stop",
        "stream",
        "stream_options",
        "user",
    }
    assert json.loads(counting.whole(b'{"count": 7, "max_model_len": 9, "tokens": []}')) == {
        "input_tokens": 7
    }


def test_a_count_that_is_none_is_an_error() -> None:
    counting = translate_count(request())
    assert not isinstance(counting, Problem)

    for body in (b"{}", b'{"count": "7"}', b"oops"):
        with pytest.raises(ValueError, match=r".+"):
            counting.whole(body)
    with pytest.raises(ValueError, match="stream"):
        counting.events(b"{}")
