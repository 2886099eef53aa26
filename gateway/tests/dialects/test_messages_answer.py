"""A whole chat answer as a message."""

from __future__ import annotations

from typing import Any

import pytest
from anthropic.types import Message

from .messages_chat import answer, call, translated, whole

CALL = call("abc", "f", '{"x": 1}')


def test_a_text_is_one_block_of_a_message_of_the_model_asked_for() -> None:
    message = whole(answer(content="Hello"))

    assert message == {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": "Hello"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 4,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 8,
            "output_tokens": 5,
        },
    }
    Message.model_validate(message)


def test_thoughts_text_and_calls_are_blocks_in_this_order() -> None:
    message = whole(answer("tool_calls", content="So:", reasoning="Hm.", tool_calls=[CALL]))

    thinking, text, use = message["content"]
    assert (thinking["type"], thinking["thinking"]) == ("thinking", "Hm.")
    assert thinking["signature"]
    assert text == {"type": "text", "text": "So:"}
    assert use == {"type": "tool_use", "id": "toolu_abc", "name": "f", "input": {"x": 1}}
    assert message["stop_reason"] == "tool_use"
    Message.model_validate(message)


@pytest.mark.parametrize("names", [["reasoning"], ["reasoning_content"], ["reasoning", "reasoning_content"]])
def test_thoughts_are_found_under_either_name_once(names: list[str]) -> None:
    (block,) = whole(answer(**dict.fromkeys(names, "Hm.")))["content"]

    assert block["thinking"] == "Hm."


def test_thoughts_are_not_shown_to_who_does_not_want_them() -> None:
    thinking = {"type": "adaptive", "display": "omitted"}

    assert whole(answer(content="A", reasoning="Hm."), thinking=thinking)["content"] == [
        {"type": "text", "text": "A"}
    ]


@pytest.mark.parametrize(
    ("finish_reason", "choice", "message", "expected"),
    [
        ("stop", {}, {"content": "a"}, ("end_turn", None)),
        ("stop", {"stop_reason": None}, {"content": "a"}, ("end_turn", None)),
        ("stop", {"stop_reason": "END"}, {"content": "a"}, ("stop_sequence", "END")),
        ("stop", {"matched_stop": "END"}, {"content": "a"}, ("stop_sequence", "END")),
        # A stop token, and a stop string that the client did not ask for.
        ("stop", {"stop_reason": 151645}, {"content": "a"}, ("end_turn", None)),
        ("stop", {"stop_reason": "</s>"}, {"content": "a"}, ("end_turn", None)),
        ("length", {}, {"content": "a"}, ("max_tokens", None)),
        ("length", {}, {"tool_calls": [CALL]}, ("max_tokens", None)),
        ("tool_calls", {}, {"tool_calls": [CALL]}, ("tool_use", None)),
        # A call by name ends with `stop` at OpenAI.
        ("stop", {}, {"tool_calls": [CALL]}, ("tool_use", None)),
        ("content_filter", {}, {"content": "a"}, ("refusal", None)),
        ("stop", {}, {"refusal": "No."}, ("refusal", None)),
        (None, {}, {"content": "a"}, ("end_turn", None)),
    ],
)
def test_the_reason_to_stop_is_told(
    finish_reason: Any, choice: dict[str, Any], message: dict[str, Any], expected: tuple[str, str | None]
) -> None:
    found = whole(answer(finish_reason, choice=choice, **message), stop_sequences=["END"])

    assert (found["stop_reason"], found["stop_sequence"]) == expected


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ('{"a": [1, 2.50]}', {"a": [1, 2.5]}),
        ("", {}),
        (None, {}),
        ({"a": 1}, {"a": 1}),
        ('{"a": "cut o', {"INVALID_JSON": '{"a": "cut o'}),
    ],
)
def test_a_calls_arguments_become_its_input(arguments: Any, expected: Any) -> None:
    (block,) = whole(answer(tool_calls=[call("a", "f", arguments)]))["content"]

    assert block["input"] == expected


def test_every_call_has_an_id_of_its_own() -> None:
    calls = [call(given, "f", "{}") for given in ("0", "0", None, "", "toolu_x", "x")]

    ids = [block["id"] for block in whole(answer(tool_calls=calls))["content"]]

    assert len(set(ids)) == len(ids)
    assert ids[0] == "toolu_0"
    assert all(found.startswith("toolu_") for found in ids)


def test_a_refusal_is_told_in_its_own_words() -> None:
    assert whole(answer(refusal="I will not."))["content"] == [{"type": "text", "text": "I will not."}]


def test_an_empty_answer_has_no_blocks() -> None:
    assert whole(answer(content=""))["content"] == []


def test_unknown_usage_is_zero_and_reasoning_is_counted() -> None:
    assert whole(answer(usage=None, content="a"))["usage"]["input_tokens"] == 0
    usage = {
        "prompt_tokens": 3,
        "completion_tokens": 9,
        "prompt_tokens_details": None,
        "completion_tokens_details": {"reasoning_tokens": 4},
    }
    assert whole(answer(usage=usage, content="a"))["usage"] == {
        "input_tokens": 3,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": 9,
        "output_tokens_details": {"thinking_tokens": 4},
    }


def test_only_the_first_choice_counts() -> None:
    body = answer(content="one").replace(
        b'"choices": [', b'"choices": [{"index": 1, "message": {"content": "two"}}, '
    )

    assert whole(body)["content"][0]["text"] == "one"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"choices": []}',
        b'{"choices": [{"index": 0}]}',
        b'{"choices": "none"}',
        b'{"choices":' + b"[" * 50_000,
        answer(tool_calls=[{"id": "a", "function": {"arguments": "{}"}}]),
    ],
)
def test_what_is_no_chat_answer_is_an_error(body: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        translated().whole(body)
