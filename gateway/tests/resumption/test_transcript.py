"""What a transcript keeps is what went by, however it recognised it."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from sluice_gateway.native_observers import observer_for
from sluice_gateway.resumption import delivered
from sluice_gateway.resumption.delivered import Delivered
from sluice_gateway.resumption.templates import template
from sluice_gateway.resumption.transcript import MAX_BYTES, Transcript


def piece(text: Any, *, kind: str = "chat", created: int = 1, **more: Any) -> bytes:
    said = {"delta": {"content": text}} if kind == "chat" else {"text": text}
    choice = {"index": 0, **said, "finish_reason": None, **more}
    return b"data: " + json.dumps({"id": "c", "created": created, "choices": [choice]}).encode() + b"\n\n"


def kept(*events: bytes) -> tuple[Transcript, list[bool]]:
    transcript = Transcript()
    taken = []
    for event in events:
        taken.append(transcript.take(event))
        if not taken[-1]:
            transcript.note(event)
    return transcript, taken


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6) | st.sampled_from(
    ['"', "\\", "\\\\", '\\"', '","finish_reason":"stop","x":"', "\n", "\n\n", '"}}]}\n\ndata: {"a":"', "}"]
)
CHOICES: dict[str, Any] = {
    "finish_reason": "stop",
    "logprobs": {"content": []},
    "index": 1,
}
EVENTS = st.one_of(
    st.builds(piece, TEXTS, kind=st.sampled_from(["chat", "completions"]), created=st.integers(1, 2)),
    st.sampled_from(
        [
            *(piece("odd", **{name: value}) for name, value in CHOICES.items()),
            piece(None),
            b'data: {"choices":[],"usage":{"prompt_tokens":1}}\n\n',
            b'data: {"id":"c","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n',
            b'data: {"id":"c","choices":[{"index":0,"delta":{"reasoning":"Hm"},"finish_reason":null}]}\n\n',
            b"data: [DONE]\n\n",
            b": keep-alive\n\n",
            b"data: {\n\n",
        ]
    ),
)


@given(st.lists(EVENTS, max_size=30))
@example([piece("a"), piece('b","x":"c'), piece("d" * 5)])
def test_it_reads_as_if_every_event_had_been_kept(events: list[bytes]) -> None:
    transcript, _ = kept(*events)
    plain = Transcript()
    plain.blocks += [(0, event) for event in events]

    found, wanted = delivered.read(transcript), delivered.read(plain)

    assert _fields(found) == _fields(wanted)


@given(st.lists(EVENTS, max_size=30))
def test_what_it_takes_is_what_an_observer_counts_as_content(events: list[bytes]) -> None:
    transcript, taken = kept(*events)
    for event, plain in zip(events, taken, strict=True):
        if plain:
            observer = observer_for("chat", hide_usage=True)
            assert observer.keep(event)
            assert (observer.data_events, observer.content_events) == (1, 1)
            assert not observer.ended
            assert (observer.usage, observer.error) == (None, None)
    assert transcript.whole


def _fields(found: Delivered) -> dict[str, Any]:
    return {name: getattr(found, name) for name in Delivered.__struct_fields__}


def test_one_event_shows_what_the_next_ones_look_like() -> None:
    _, taken = kept(*(piece(f"word {number} ") for number in range(1000)))
    assert taken == [False] + [True] * 999


def test_an_engine_whose_events_all_differ_is_not_looked_at_for_ever() -> None:
    transcript = Transcript()
    for number in range(100):
        transcript.note(piece("x", created=number))
    assert not any(transcript.take(piece("x", created=number)) for number in range(99, 20, -1))
    assert delivered.read(transcript).text == "x" * 100


def test_a_clock_in_the_events_costs_one_look_a_second() -> None:
    events = [piece("x", created=number // 10) for number in range(1000)]
    _, taken = kept(*events)
    assert taken.count(False) == 100


def test_it_is_bounded_in_bytes() -> None:
    transcript, _ = kept(piece("x"), *([piece("y" * 1000)] * (MAX_BYTES // 1000 + 300)))
    assert (transcript.whole, transcript.blocks) == (False, [])
    assert transcript.take(piece("still plain"))
    assert not delivered.read(transcript).read


def test_texts_take_no_more_than_they_are() -> None:
    transcript, _ = kept(*([piece("word")] * 5001))
    found = delivered.read(transcript)
    assert (found.text, found.pieces, found.tokens) == ("word" * 5001, 5001, 5001)
    assert sum(len(data) for events, data in transcript.blocks if events) == 4 * 5000
    assert len(transcript.blocks) < 25


def test_events_that_hold_several_tokens_are_counted_by_their_length() -> None:
    transcript, _ = kept(*([piece("four or more words and then some")] * 10))
    assert delivered.read(transcript).tokens == 64


def test_what_is_not_what_the_client_got_is_forgotten() -> None:
    transcript, _ = kept(piece("a"), piece("b"))
    transcript.drop()
    transcript.note(piece("c"))
    assert (transcript.whole, delivered.read(transcript).text) == (False, "")


def test_only_what_all_events_have_alike_is_put_into_others() -> None:
    transcript, _ = kept(piece("a").replace(b'"id"', b'"timings": {}, "id"'))
    assert delivered.read(transcript).envelope == {"id": "c", "created": 1}


def test_halves_of_a_character_in_two_events_are_one() -> None:
    start, end = piece("\U0001f44d").split(b"\\ud83d\\udc4d")
    halves = [start + half + end for half in (b"\\ud83d", b"\\udc4d")]
    transcript, taken = kept(piece("a"), *halves, piece("b"))
    assert taken == [False, True, True, True]
    assert delivered.read(transcript).text == "a👍b"


def test_only_plain_events_are_templates() -> None:
    assert template(piece("x")) is not None
    for event in (
        piece(""),
        piece("x", index=1),
        piece("x", finish_reason="stop"),
        piece("x", logprobs={"content": []}),
        piece("x").replace(b'"finish_reason"', b'"text": "y", "finish_reason"'),
        piece("x").replace(b"\n\n", b"\r\n\r\n"),
        piece("x").replace(b'"id"', b'"error": {}, "id"'),
        piece("x").replace(b'"id"', b'"usage": {"prompt_tokens": 1}, "id"'),
        b"event: x\n" + piece("x"),
    ):
        assert template(event) is None, event
