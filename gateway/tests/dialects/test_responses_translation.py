"""A chat answer becomes a response: the same one, however its stream was cut."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response

from sluice_gateway.dialects.responses.chat_translation import ChatTranslation
from sluice_gateway.errors import Failure, problem

from .responses_events import IDENTITY, check_sequence, events_of, request_of, translation_of

USAGE = {
    "prompt_tokens": 7,
    "completion_tokens": 5,
    "total_tokens": 12,
    "prompt_tokens_details": {"cached_tokens": 3},
    "completion_tokens_details": {"reasoning_tokens": 2},
}


def chunk(finish: str | None = None, index: int = 0, **delta: Any) -> bytes:
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    return json.dumps({"id": "c", "object": "chat.completion.chunk", "choices": [choice]}).encode()


def usage_chunk() -> bytes:
    return json.dumps({"choices": [], "usage": USAGE}).encode()


def call(index: int, **fields: Any) -> dict[str, Any]:
    function = {name: fields.pop(name) for name in ("name", "arguments") if name in fields}
    return {"index": index, "function": function, **fields}


def streamed(translation: ChatTranslation, *chunks: bytes) -> bytes:
    return b"".join(translation.events(data) for data in chunks) + translation.end()


def answer(finish: str = "stop", usage: Any = USAGE, **message: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    return json.dumps({"choices": [choice], "usage": usage}).encode()


def whole(body: bytes, **fields: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(translation_of(request_of(**fields)).whole(body))
    Response.model_validate_json(json.dumps(found), strict=True)
    return found


def test_text_is_told_in_openais_order() -> None:
    role = chunk(role="assistant", content="")
    stream = streamed(
        translation_of(), role, chunk(content="Hel"), chunk(content="lo"), chunk("stop"), usage_chunk()
    )

    events = events_of(stream)
    final = check_sequence(events)

    assert [e["type"].removeprefix("response.") for e in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert all(e["logprobs"] == [] for e in events if e["type"].startswith("response.output_text"))
    assert final["usage"] == {
        "input_tokens": 7,
        "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 0},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 12,
    }
    assert final["completed_at"] == 1_700_000_009


def test_the_response_object_has_every_key_of_openais() -> None:
    found = whole(answer(content="hi"))
    wanted = (
        "id object created_at status background error incomplete_details instructions max_output_tokens"
        " max_tool_calls model output parallel_tool_calls previous_response_id prompt_cache_key reasoning"
        " safety_identifier service_tier store temperature text tool_choice tools top_logprobs top_p"
        " truncation usage user metadata"
    )
    assert set(wanted.split()) <= set(found)
    assert found["output"][0]["content"][0]["logprobs"] == []


def test_what_was_asked_is_echoed() -> None:
    tool = {"type": "function", "name": "f", "parameters": {"type": "object"}}
    asked: dict[str, Any] = {
        "instructions": "be brief",
        "temperature": 0.5,
        "top_p": 0.25,
        "max_output_tokens": 9,
        "metadata": {"a": "b"},
        "reasoning": {"effort": "low"},
        "tool_choice": {"type": "function", "name": "f"},
        "parallel_tool_calls": False,
        "truncation": "auto",
        "user": "u",
        "text": {"format": {"type": "json_schema", "name": "n", "schema": {}}, "verbosity": "low"},
    }
    found = whole(answer(content="hi"), tools=[tool], **asked)
    for name in set(asked) - {"text", "reasoning"}:
        assert found[name] == asked[name]
    assert found["tools"] == [{**tool, "strict": None, "description": None}]
    assert found["reasoning"] == {"effort": "low", "summary": None}
    assert found["text"]["format"]["name"] == "n"


def test_nothing_is_told_before_the_engine_has_said_something() -> None:
    translation = translation_of()
    assert translation.events(chunk(role="assistant", content="")) == b""
    assert not translation.started


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_thoughts_are_an_item_of_their_own(name: str) -> None:
    thought: dict[str, Any] = {name: "hm"}
    stream = streamed(translation_of(), chunk(**thought), chunk(content="yes"), chunk("stop"))
    thoughts, message = check_sequence(events_of(stream))["output"]
    assert thoughts["content"] == [{"type": "reasoning_text", "text": "hm"}]
    assert message["content"][0]["text"] == "yes"


def test_thoughts_sent_under_both_names_count_once() -> None:
    stream = streamed(translation_of(), chunk(reasoning="hm", reasoning_content="hm"), chunk("stop"))
    assert check_sequence(events_of(stream))["output"][0]["content"][0]["text"] == "hm"


def test_interleaved_calls_keep_apart_and_names_are_not_repeated() -> None:
    stream = streamed(
        translation_of(),
        chunk(content="Let me see."),
        chunk(tool_calls=[call(0, id="call_a", name="f", arguments='{"x"')]),
        chunk(tool_calls=[call(1, id="call_b", name="g", arguments="")]),
        chunk(tool_calls=[call(0, name="f", arguments=":1}")]),
        chunk("tool_calls"),
    )
    message, first, second = check_sequence(events_of(stream))["output"]
    assert message["status"] == "completed"
    assert (first["name"], first["arguments"], first["call_id"]) == ("f", '{"x":1}', "call_a")
    assert (second["name"], second["arguments"]) == ("g", "{}")


@pytest.mark.parametrize("given_id", [None, "", "0", 0, "call_same"])
def test_calls_get_unique_ids(given_id: Any) -> None:
    calls = [call(i, id=given_id, name="f", arguments="{}") for i in range(2)]
    first, second = whole(answer("tool_calls", content=None, tool_calls=calls))["output"]
    assert first["call_id"] != second["call_id"]
    assert first["call_id"].startswith("call_")
    assert second["call_id"].startswith("call_")


def test_arguments_as_an_object_become_text() -> None:
    calls = [call(0, id="call_a", name="f", arguments={"x": 1})]
    assert whole(answer("tool_calls", tool_calls=calls))["output"][0]["arguments"] == '{"x": 1}'


def test_a_refusal_is_a_part() -> None:
    stream = streamed(translation_of(), chunk(refusal="I "), chunk(refusal="won't"), chunk("stop"))
    assert check_sequence(events_of(stream))["output"][0]["content"] == [
        {"type": "refusal", "refusal": "I won't"}
    ]


@pytest.mark.parametrize(
    ("finish", "status", "reason"),
    [
        ("stop", "completed", None),
        ("tool_calls", "completed", None),
        ("eos_token", "completed", None),
        ("length", "incomplete", "max_output_tokens"),
        ("content_filter", "incomplete", "content_filter"),
    ],
)
def test_how_it_finished(finish: str, status: str, reason: str | None) -> None:
    plain = whole(answer(finish, content="some"), stream=True)
    stream = streamed(translation_of(), chunk(content="some"), chunk(finish), usage_chunk())
    assert check_sequence(events_of(stream)) == plain
    assert plain["status"] == plain["output"][0]["status"] == status
    assert plain["incomplete_details"] == ({"reason": reason} if reason else None)


def test_an_empty_answer_is_an_empty_message() -> None:
    stream = streamed(translation_of(), chunk("stop"))
    assert check_sequence(events_of(stream))["output"][0]["content"][0]["text"] == ""


def test_a_failure_in_the_middle_is_the_last_event_with_what_there_is() -> None:
    translation = translation_of()
    begun = translation.events(chunk(content="half"))
    found = problem(Failure.UPSTREAM_LOST, "The engine went away.")
    final = check_sequence(events_of(begun + translation.failure(found)))
    assert final["error"] == {"code": "server_error", "message": "The engine went away."}
    assert final["output"][0]["status"] == "incomplete"
    assert final["output"][0]["content"][0]["text"] == "half"


def test_a_failure_before_anything_is_still_a_whole_stream() -> None:
    found = problem(Failure.QUEUE_FULL, "Full.")
    final = check_sequence(events_of(translation_of().failure(found)))
    assert final["error"]["code"] == "rate_limit_exceeded"
    assert final["output"] == []


def test_events_announced_before_are_not_repeated() -> None:
    stream = streamed(translation_of(announced=2), chunk(content="x"), chunk("stop"))
    assert check_sequence(events_of(stream), first=2)["status"] == "completed"


def test_logprobs_come_when_asked_for_and_with_all_keys() -> None:
    entry = {"token": "é", "bytes": None, "logprob": -0.5, "top_logprobs": [{"token": "e", "logprob": -1.0}]}
    choice = {"index": 0, "delta": {"content": "é"}, "logprobs": {"content": [entry]}}
    data = json.dumps({"choices": [choice]}).encode()
    asked = request_of(stream=True, include=["message.output_text.logprobs"], top_logprobs=1)

    final = check_sequence(events_of(streamed(translation_of(asked), data, chunk("stop"))))
    unasked = check_sequence(events_of(streamed(translation_of(), data, chunk("stop"))))

    assert final["output"][0]["content"][0]["logprobs"] == [
        {
            "token": "é",
            "bytes": [195, 169],
            "logprob": -0.5,
            "top_logprobs": [{"token": "e", "bytes": [101], "logprob": -1.0}],
        }
    ]
    assert unasked["output"][0]["content"][0]["logprobs"] == []


def test_other_choices_are_ignored() -> None:
    stream = streamed(translation_of(), chunk(index=1, content="no"), chunk(content="yes"), chunk("stop"))
    assert check_sequence(events_of(stream))["output"][0]["content"][0]["text"] == "yes"


@pytest.mark.parametrize("data", [b"", b"<html>", b"[]", b'{"detail": "no"}', b'{"choices": 3}'])
def test_what_is_no_chat_answer_is_said_to_be_none(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a chat"):
        translation_of().events(data)
    with pytest.raises(ValueError, match="not a chat"):
        translation_of().whole(data)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
CALLS = st.lists(st.tuples(st.sampled_from(["f", "g"]), TEXTS), max_size=3)


def cut(draw: st.DrawFn, text: str) -> list[str]:
    """A text in pieces, some of them empty."""
    places = sorted(draw(st.lists(st.integers(0, len(text)), max_size=4)))
    return [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]


@st.composite
def answers(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    """One answer, whole and as a stream cut anywhere, with the calls' pieces interleaved."""
    reasoning, text, refusal = draw(TEXTS), draw(TEXTS), draw(TEXTS)
    finish = draw(st.sampled_from(["stop", "length", "tool_calls", "content_filter"]))
    calls = [call(i, id=f"call_{i}", name=name, arguments=args) for i, (name, args) in enumerate(draw(CALLS))]
    chunks = [chunk(role="assistant", content="")]
    chunks += [chunk(reasoning_content=piece) for piece in cut(draw, reasoning)]
    chunks += [chunk(content=piece) for piece in cut(draw, text)]
    chunks += [chunk(refusal=piece) for piece in cut(draw, refusal)]
    chunks += [chunk(tool_calls=[{**c, "function": {"name": c["function"]["name"]}}]) for c in calls]
    rest = [(c["index"], piece) for c in calls for piece in cut(draw, c["function"]["arguments"])]
    by_call = {i: [piece for j, piece in rest if j == i] for i in range(len(calls))}
    for i in draw(st.permutations([j for j, _ in rest])):
        chunks.append(chunk(tool_calls=[call(i, arguments=by_call[i].pop(0))]))
    message = {"reasoning_content": reasoning, "content": text, "refusal": refusal, "tool_calls": calls}
    return answer(finish, **message), [*chunks, chunk(finish), usage_chunk()]


@given(answers())
def test_any_cut_of_a_stream_is_the_whole_answer(made: tuple[bytes, list[bytes]]) -> None:
    plain, chunks = made
    final = check_sequence(events_of(streamed(translation_of(), *chunks)))
    assert final == whole(plain, stream=True)
    assert all(item["id"].partition("_")[2].startswith(IDENTITY.id[5:]) for item in final["output"])
