"""An engine that speaks the Responses API keeps its own words, and gets the gateway's identity."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sluice_gateway.dialects.responses.native_translation import NativeTranslation
from sluice_gateway.dialects.responses.response_object import Echo
from sluice_gateway.errors import Failure, problem

from .responses_events import IDENTITY, check_sequence, events_of, request_of, translation_of
from .test_responses_translation import chunk

PREVIOUS = "resp_" + "cd" * 24


def native(announced: int = 0) -> NativeTranslation:
    request = request_of(stream=True, previous_response_id=PREVIOUS)
    return NativeTranslation(b"{}", Echo(request, IDENTITY), announced=announced)


def engine_stream(*drop: str) -> list[dict[str, Any]]:
    """What an engine says that has ids of its own and forgets some keys."""
    translation = translation_of()
    stream = translation.events(chunk(content="Hel")) + translation.events(chunk(content="lo"))
    stream += translation.end()
    events = events_of(stream)
    for event in events:
        if "response" in event:
            event["response"] = {**event["response"], "id": "resp_engine", "previous_response_id": None}
            event["response"].pop("metadata")
        for name in drop:
            event.pop(name, None)
    return events


def played(translation: NativeTranslation, events: list[dict[str, Any]]) -> bytes:
    return b"".join(translation.events(json.dumps(event).encode()) for event in events) + translation.end()


def test_identity_is_the_gateways_everywhere() -> None:
    translation = native()
    final = check_sequence(events_of(played(translation, engine_stream())))
    assert (final["id"], final["previous_response_id"]) == (IDENTITY.id, PREVIOUS)
    assert final["metadata"] == {}
    assert translation.response == final


def test_events_without_an_identity_pass_byte_for_byte() -> None:
    data = b'{ "type":"response.custom", "sequence_number":0, "new": 1.50 }'
    assert native().events(data) == b"event: response.custom\ndata: " + data + b"\n\n"


def test_keys_that_typed_clients_need_are_added() -> None:
    stream = played(native(), engine_stream("logprobs"))
    deltas = [e for e in events_of(stream) if e["type"] == "response.output_text.delta"]
    assert [event["logprobs"] for event in deltas] == [[], []]


def test_numbering_goes_on_after_what_was_announced() -> None:
    stream = played(native(announced=2), engine_stream())
    assert check_sequence(events_of(stream), first=2)["status"] == "completed"


def test_the_end_is_held_back_until_the_response_can_be_kept() -> None:
    translation = native()
    *others, last = engine_stream()
    for event in others:
        assert translation.events(json.dumps(event).encode())
    assert translation.events(json.dumps(last).encode()) == b""
    assert translation.response is not None
    assert events_of(translation.end())[0]["type"] == "response.completed"


def test_an_engine_that_forgets_the_end_has_failed() -> None:
    stream = played(native(), engine_stream()[:-1])
    final = check_sequence(events_of(stream))
    assert final["status"] == "failed"
    assert final["output"][0]["content"][0]["text"] == "Hello"


def test_a_failure_before_anything_is_a_whole_stream() -> None:
    found = problem(Failure.UPSTREAM_LOST, "Lost.")
    events = events_of(native().failure(found))
    assert [event["type"] for event in events] == ["response.created", "response.failed"]


def test_a_plain_answer_is_patched_and_its_usage_read() -> None:
    translation = native()
    plain = {**engine_stream()[-1]["response"]}
    plain["usage"] = {
        "input_tokens": 5,
        "output_tokens": 2,
        "total_tokens": 7,
        "input_tokens_details": {"cached_tokens": 4},
    }
    found = json.loads(translation.whole(json.dumps(plain).encode()))
    assert found["id"] == IDENTITY.id
    assert translation.response == found
    assert translation.usage is not None
    assert (translation.usage.prompt_tokens, translation.usage.cached_tokens) == (5, 4)


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b'{"type": 1}', b'{"type": "response.completed", "response": 1}']
)
def test_what_is_no_event_is_said_to_be_none(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"^(not|the last event)"):
        native().events(data)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"object": "chat.completion"}'])
def test_what_is_no_response_is_said_to_be_none(body: bytes) -> None:
    with pytest.raises(ValueError, match="not a"):
        native().whole(body)
