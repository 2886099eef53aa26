"""A chat stream as the Messages API's events: what comes when."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sluice_gateway.errors import Failure, problem

from .messages_chat import LAST, ROLE, USAGE, answer, call, chunk, more, streamed, translated, whole
from .messages_events import frames, message_of


def types(stream: bytes) -> list[str]:
    """The events in short: their type, or their delta's."""
    return [event.get("delta", {}).get("type") or event["type"] for event in frames(stream)]


def test_a_text_streams_as_one_block() -> None:
    stream = streamed([ROLE, chunk(content="Hel"), chunk(content="lo"), chunk("stop"), LAST])

    assert types(stream) == [
        "message_start",
        "content_block_start",
        "text_delta",
        "text_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert message_of(stream) == whole(answer(content="Hello"))


def test_the_message_begins_with_its_first_content_and_not_before() -> None:
    translation = translated(stream=True)

    assert translation.events(ROLE) == b""
    assert translation.events(chunk(content="")) == b""
    assert types(translation.events(chunk(content="a"))) == [
        "message_start",
        "content_block_start",
        "text_delta",
    ]
    assert types(translation.events(chunk(content="b"))) == ["text_delta"]


def test_usage_is_told_at_the_start_when_known_and_in_total_at_the_end() -> None:
    first = json.loads(chunk(content="a"))
    known = json.dumps({**first, "usage": {"prompt_tokens": 12, "completion_tokens": 1}}).encode()

    late, early = (frames(streamed([head, chunk("stop"), LAST])) for head in (chunk(content="a"), known))

    assert late[0]["message"]["usage"]["input_tokens"] == 0
    assert early[0]["message"]["usage"]["input_tokens"] == 12
    for events in (late, early):
        assert events[-2]["usage"] == {
            "input_tokens": 4,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 8,
            "output_tokens": 5,
        }


def test_thinking_ends_with_a_signature() -> None:
    stream = streamed(
        [chunk(reasoning_content="H"), chunk(reasoning="m."), chunk(content="A"), chunk("stop")]
    )

    assert types(stream)[1:7] == [
        "content_block_start",
        "thinking_delta",
        "thinking_delta",
        "signature_delta",
        "content_block_stop",
        "content_block_start",
    ]
    assert message_of(stream)["content"] == whole(answer(content="A", reasoning="Hm."))["content"]


def test_omitted_thoughts_begin_no_message() -> None:
    translation = translated(stream=True, thinking={"type": "adaptive", "display": "omitted"})

    assert translation.events(chunk(reasoning="Hm.")) == b""
    stream = translation.events(chunk(content="A")) + translation.end()
    assert message_of(stream)["content"] == [{"type": "text", "text": "A"}]


def test_a_calls_arguments_stream_as_they_come() -> None:
    translation = translated(stream=True)

    first = translation.events(chunk(tool_calls=[call("a", "f", "", 0)]))
    pieces = [translation.events(chunk(tool_calls=[more(0, piece)])) for piece in ('{"x"', ": 1", "}")]

    start = frames(first)[1]["content_block"]
    assert start == {"type": "tool_use", "id": "toolu_a", "name": "f", "input": {}}
    deltas = [frames(piece) for piece in pieces]
    assert [found["delta"]["partial_json"] for (found,) in deltas] == ['{"x"', ": 1", "}"]
    end = translation.end()
    message = message_of(first + b"".join(pieces) + end)
    assert message["content"] == [{**start, "input": {"x": 1}}]
    assert message["stop_reason"] == "tool_use"


def test_a_repeated_name_is_told_once() -> None:
    chunks = [chunk(tool_calls=[call("a", "f", piece, 0)]) for piece in ("{", "}")]

    (block,) = message_of(streamed(chunks))["content"]

    assert block["name"] == "f"


def test_calls_one_after_the_other_do_not_wait() -> None:
    translation = translated(stream=True)
    one = translation.events(chunk(tool_calls=[call("a", "f", "{}", 0)]))

    two = translation.events(chunk(tool_calls=[call("b", "g", "", 1)]))

    assert types(two) == ["content_block_stop", "content_block_start"]
    message = message_of(one + two + translation.end())
    assert [block["id"] for block in message["content"]] == ["toolu_a", "toolu_b"]


def test_calls_that_overlap_are_put_in_order() -> None:
    chunks = [
        chunk(tool_calls=[call("a", "f", '{"x":', 0)]),
        chunk(tool_calls=[call("b", "g", '{"y":', 1), more(0, "1")]),
        chunk(tool_calls=[more(1, "2}")]),
        chunk(tool_calls=[more(0, "}")]),
    ]

    blocks = message_of(streamed(chunks))["content"]

    assert [block["input"] for block in blocks] == [{"x": 1}, {"y": 2}]


def test_text_after_a_call_is_a_block_after_it() -> None:
    chunks = [chunk(tool_calls=[call("a", "f", "{}", 0)]), chunk(content="Done."), chunk(content="!")]

    blocks = message_of(streamed(chunks))["content"]

    assert [block["type"] for block in blocks] == ["tool_use", "text"]
    assert blocks[1]["text"] == "Done.!"


def test_text_in_the_middle_of_a_call_waits_for_its_end_and_is_one_block() -> None:
    chunks = [
        chunk(tool_calls=[call("a", "f", '{"x":', 0)]),
        chunk(content="Do"),
        chunk(content="ne."),
        chunk(tool_calls=[more(0, "1}")]),
    ]

    blocks = message_of(streamed(chunks))["content"]

    assert [block["type"] for block in blocks] == ["tool_use", "text"]
    assert blocks[1]["text"] == "Done."


def test_a_call_cut_by_the_length_keeps_what_there_is() -> None:
    stream = streamed([chunk(tool_calls=[call("a", "f", '{"x": "lo', 0)]), chunk("length")])

    deltas = [event["delta"] for event in frames(stream) if event["type"] == "content_block_delta"]
    assert "".join(delta["partial_json"] for delta in deltas) == '{"x": "lo'
    assert frames(stream)[-2]["delta"]["stop_reason"] == "max_tokens"


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        (chunk("stop", choice={"stop_reason": "END"}), ("stop_sequence", "END")),
        (chunk("stop", choice={"matched_stop": "END"}), ("stop_sequence", "END")),
        (chunk("stop"), ("end_turn", None)),
        (chunk("length"), ("max_tokens", None)),
        (chunk("content_filter"), ("refusal", None)),
    ],
)
def test_the_reason_to_stop_is_in_the_last_delta(last: bytes, expected: tuple[str, str | None]) -> None:
    message = message_of(streamed([chunk(content="a"), last, LAST], stop_sequences=["END"]))

    assert (message["stop_reason"], message["stop_sequence"]) == expected


def test_a_refusal_is_text_and_the_reason_to_stop() -> None:
    chunks = [chunk(refusal="I will"), chunk(refusal=" not."), chunk("stop"), LAST]

    assert message_of(streamed(chunks)) == whole(answer(refusal="I will not."))


def test_an_empty_stream_is_an_empty_message() -> None:
    assert message_of(streamed([ROLE, chunk("stop"), LAST])) == whole(answer(content=""))


def test_other_choices_and_empty_chunks_are_passed_over() -> None:
    other = json.dumps({"choices": [{"index": 1, "delta": {"content": "no"}}]}).encode()

    message = message_of(streamed([b'{"choices": []}', other, chunk(content="yes"), LAST]))

    assert message["content"] == [{"type": "text", "text": "yes"}]
    assert message["usage"]["output_tokens"] == USAGE["completion_tokens"]


@pytest.mark.parametrize(
    "bad",
    [
        [b"oops"],
        [b"{}"],
        [b'{"choices": [{"delta": 3}]}'],
        [b'{"choices":' + b"[" * 50_000],
        # A call that begins in its middle.
        [chunk(tool_calls=[more(0, "{}")])],
        # More of a call whose block had to be closed.
        [chunk(tool_calls=[call("a", "f", "{}", 0)]), chunk(content="x"), chunk(tool_calls=[more(0, "{}")])],
    ],
)
def test_what_is_no_chat_stream_is_an_error(bad: list[bytes]) -> None:
    translation = translated(stream=True)

    with pytest.raises(ValueError, match=r".+"):
        for data in bad:
            translation.events(data)


def test_a_failure_is_an_error_event() -> None:
    found: Any = problem(Failure.UPSTREAM_LOST, "The engine went away.")

    (event,) = frames(translated(stream=True).failure(found))

    assert event == {
        "type": "error",
        "error": {"type": "api_error", "message": "The engine went away."},
        "request_id": None,
    }
