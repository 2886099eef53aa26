"""Tokens are counted, whatever the engine tells and however the stream ends."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice_gateway.usage import StreamObserver, Tail, read_body
from sluice_router.types import Usage

from .scripted_engine import DONE, FINISH, KEEP_ALIVE, ROLE, USAGE, delta, event


def test_the_engines_own_usage_wins() -> None:
    observer = StreamObserver(hide_usage=True)
    assert [observer.keep(e) for e in (ROLE, delta("a"), USAGE, DONE)] == [True, True, False, True]
    assert observer.settle(99) == Usage(prompt_tokens=7, completion_tokens=2)
    assert observer.done


def test_without_it_content_is_counted() -> None:
    observer = StreamObserver(hide_usage=True)
    for piece in (KEEP_ALIVE, ROLE, delta("a"), delta("b"), FINISH):
        observer.keep(piece)
    assert observer.settle(99) == Usage(prompt_tokens=99, completion_tokens=2)
    assert observer.finished
    assert not observer.done


@pytest.mark.parametrize(
    "shown",
    [
        {"delta": {"content": "x"}},
        {"delta": {"reasoning_content": "x"}},
        {"delta": {"reasoning": "x"}},
        {"delta": {"tool_calls": [{"index": 0}]}},
        {"delta": {"refusal": "x"}},
        {"text": "x"},
    ],
)
def test_all_that_a_choice_can_show_is_content(shown: dict[str, object]) -> None:
    observer = StreamObserver(hide_usage=False)
    observer.keep(event(choices=[shown]))
    assert observer.content_events == 1


@pytest.mark.parametrize("empty", [{"delta": {}}, {"delta": {"content": "", "tool_calls": []}}, {"text": ""}])
def test_an_empty_delta_is_not(empty: dict[str, object]) -> None:
    observer = StreamObserver(hide_usage=False)
    observer.keep(event(choices=[empty]))
    assert observer.content_events == 0


def test_usage_beside_content_is_never_hidden() -> None:
    observer = StreamObserver(hide_usage=True)
    assert observer.keep(event(choices=[{"delta": {"content": "x"}}], usage={"prompt_tokens": 1}))
    assert observer.usage == Usage(prompt_tokens=1)


def test_cached_tokens_are_read() -> None:
    details = {"prompt_tokens": 9, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 8}}
    observer = StreamObserver(hide_usage=False)
    observer.keep(event(choices=[], usage=details))
    assert observer.usage == Usage(prompt_tokens=9, completion_tokens=1, cached_tokens=8)


@pytest.mark.parametrize(
    ("said", "read", "written"),
    [
        ({"total_tokens": 12}, 12, 0),
        ({"prompt_tokens": 12, "total_tokens": 12}, 12, 0),
        ({"prompt_tokens": 0, "completion_tokens": 3, "total_tokens": 3}, 0, 3),
        ({"input_tokens": 14, "output_tokens": 45, "total_tokens": 59}, 14, 45),
        ({"completion_tokens": 9, "total_tokens": 2}, 0, 9),
    ],
)
def test_each_kind_tells_its_usage_in_its_own_words(said: dict[str, int], read: int, written: int) -> None:
    usage = read_body(json.dumps({"usage": said}).encode()).usage
    assert usage == Usage(prompt_tokens=read, completion_tokens=written)


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"usage": 3}', b"\xff"])
def test_a_body_without_usage_has_none(body: bytes) -> None:
    assert read_body(body).usage is None


def test_the_last_usage_in_a_tail_is_taken() -> None:
    tail = Tail()
    for chunk in (b'{"usage": {"prompt_tokens": 1}', b"x" * 100_000, b'"usage" : {"prompt_tokens": 5}', b"}"):
        tail.feed(chunk)
    assert tail.usage() == Usage(prompt_tokens=5)


@pytest.mark.parametrize(
    "text", [b"nothing", b'"usage": nope', b'"usage": {"prompt_tokens": "x"}', b'"usage"']
)
def test_a_tail_without_usage_has_none(text: bytes) -> None:
    tail = Tail()
    tail.feed(text)
    assert tail.usage() is None


TRICKY = st.sampled_from(
    [
        "",
        "x",
        '"finish_reason":null',
        '"content":""',
        '"usage":{}',
        '"error"',
        "\\",
        "☀",
        "\n\n",
        '","content":"',
    ]
)
DELTAS = st.fixed_dictionaries(
    {}, optional={"content": st.none() | TRICKY, "role": st.just("assistant"), "reasoning": TRICKY}
)
CHOICES = st.fixed_dictionaries(
    {"delta": DELTAS}, optional={"finish_reason": st.sampled_from([None, "stop"]), "index": st.integers(0, 2)}
)
CHUNKS = st.fixed_dictionaries(
    {"choices": st.lists(CHOICES, max_size=2)},
    optional={
        "usage": st.none() | st.just({"prompt_tokens": 3, "completion_tokens": 4}),
        "error": st.none() | st.just({"message": "no"}),
        "system_fingerprint": TRICKY,
    },
)


@given(CHUNKS, st.sampled_from([(",", ":"), (", ", ": ")]))
def test_the_quick_look_sees_what_decoding_sees(
    chunk: dict[str, object], separators: tuple[str, str]
) -> None:
    data = json.dumps(chunk, separators=separators).encode()
    quick, slow = StreamObserver(hide_usage=True), StreamObserver(hide_usage=True)
    kept = quick.keep(b"data: " + data + b"\n\n")
    assert kept == slow.keep(b"data: " + data + b"\r\n\r\n")  # line ends that are always decoded
    for name in ("data_events", "content_events", "usage", "error", "finished", "done"):
        assert getattr(quick, name) == getattr(slow, name), name
