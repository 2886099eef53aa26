"""Verdicts at their borders, on answers whose times and counts are chosen."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from sluice_bench.audit.answer_lengths import answer_lengths
from sluice_bench.audit.cached_answers import cached_answers
from sluice_bench.audit.seeds import seeds
from sluice_bench.audit.streams import Stream
from sluice_bench.audit.token_counts import Recount, chunks_and_tokens, usage_and_tokenize
from sluice_bench.records import RequestRecord

MS = 1_000_000


def stream(
    text: str = "a b",
    *,
    tokens: int | None = 10,
    listed: int | None = 10,
    events: int = 10,
    reading_ms: float = 100.0,
    writing_ms: float = 100.0,
    **more: Any,
) -> Stream:
    first = round(reading_ms * MS)
    fields: dict[str, Any] = {"prompt_tokens": 20, "asked_tokens": 10, "finish_reason": "length"}
    record = RequestRecord(
        index=0,
        stream=True,
        scheduled_ns=0,
        written_ns=0,
        first_token_ns=first,
        last_token_ns=first + round(writing_ms * MS),
        output_tokens=tokens,
        text_sha256=text,
        **{**fields, **more},
    )
    return Stream(record=record, text=text, text_events=events, listed_tokens=listed)


# --- cached answers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("again", "verdict"),
    [
        ({}, "pass"),
        ({"reading_ms": 85.0}, "pass"),
        ({"reading_ms": 20.0}, "cannot tell"),
        ({"reading_ms": 20.0, "cached_tokens": 16}, "pass"),
        ({"reading_ms": 20.0, "writing_ms": 50.0, "cached_tokens": 16}, "fail"),
        ({"reading_ms": 100.0, "writing_ms": 0.0}, "fail"),
    ],
)
def test_only_writing_that_is_spared_is_cheating(again: dict[str, Any], verdict: str) -> None:
    fresh = {"cached_tokens": 0} if "cached_tokens" in again else {}
    pairs = [(stream(**fresh), stream(**again))] * 8

    assert cached_answers(pairs, Random(1)).verdict == verdict


def test_one_slow_answer_neither_accuses_nor_clears() -> None:
    """A machine that stood still during one fresh answer: the mean is far off, the interval reaches 1."""
    pairs = [(stream(writing_ms=5000.0), stream()), *[(stream(), stream())] * 7]
    found = cached_answers(pairs, Random(1))

    assert found.verdict == "cannot tell"
    assert "Ask for more --pairs." in found.evidence


def test_one_slow_repetition_does_not_clear_a_cache() -> None:
    """Half of the time is spared, and once the machine stood still: the interval reaches what is allowed."""
    cached = stream(reading_ms=0.0)
    pairs = [(stream(), stream(reading_ms=0.0, writing_ms=500.0)), *[(stream(), cached)] * 7]

    assert cached_answers(pairs, Random(1)).verdict == "cannot tell"


def test_answers_in_one_piece_are_judged_by_the_whole_alone() -> None:
    fresh, again = stream(writing_ms=0.0), stream(reading_ms=10.0, writing_ms=0.0)
    told = stream(reading_ms=10.0, writing_ms=0.0, cached_tokens=16)

    assert cached_answers([(fresh, again)] * 8, Random(1)).verdict == "fail"
    assert cached_answers([(fresh, told)] * 8, Random(1)).verdict == "cannot tell"


# --- lengths ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        ([stream()] * 4, "pass"),
        ([stream(tokens=n, listed=n, finish_reason="stop") for n in (7, 7, 7, 8)], "pass"),
        ([stream(tokens=7, listed=7, finish_reason="stop")] * 4, "fail"),
        ([stream(tokens=7, listed=7, finish_reason="stop")] * 3, "pass"),
        ([stream()] * 3 + [stream(tokens=9, listed=9)], "fail"),
        ([stream()] * 3 + [stream(tokens=9, listed=9, finish_reason=None)], "fail"),
        ([stream()] * 3 + [stream(tokens=11, listed=11)], "fail"),
        ([stream(tokens=None, listed=None)] * 4, "cannot tell"),
    ],
)
def test_an_answer_ends_by_itself_or_where_it_was_asked_to(found: list[Stream], verdict: str) -> None:
    assert answer_lengths(found).verdict == verdict


# --- seeds -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kept", "verdict"), [(4, "pass"), (3, "cannot tell"), (2, "fail"), (0, "fail")])
def test_most_answers_must_repeat(kept: int, verdict: str) -> None:
    trials = [(stream("a"), stream("a" if n < kept else f"b{n}"), stream("c")) for n in range(4)]

    assert seeds(trials).verdict == verdict


def test_another_seed_must_change_something() -> None:
    same = (stream("a"), stream("a"), stream("a"))

    assert seeds([same] * 4).verdict == "fail"
    assert seeds([same] * 3 + [(stream("a"), stream("a"), stream("b"))]).verdict == "pass"


# --- counts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (stream(), "pass"),
        (stream(tokens=11), "pass"),
        (stream(tokens=12), "fail"),
        (stream(tokens=8), "fail"),
        (stream(events=3), "pass"),
        (stream(events=11), "pass"),
        (stream(events=12), "fail"),
        (stream(listed=None), "pass"),
        (stream(listed=None, events=3), "cannot tell"),
        (stream(tokens=None, listed=None), "cannot tell"),
    ],
)
def test_a_token_that_ends_the_answer_may_be_counted_or_not(found: Stream, verdict: str) -> None:
    assert chunks_and_tokens([found]).verdict == verdict


@pytest.mark.parametrize(
    ("prompt", "text", "verdict"),
    [
        (20, 10, "pass"),
        (21, 10, "pass"),
        (22, 10, "fail"),
        (20, 8, "pass"),
        (20, 5, "fail"),
        (20, 14, "pass"),
        (20, 16, "fail"),
    ],
)
def test_the_prompt_is_counted_exactly_and_answers_about(prompt: int, text: int, verdict: str) -> None:
    assert usage_and_tokenize([Recount(stream=stream(), prompt=prompt, text=text)] * 4).verdict == verdict


def test_reasoning_and_calls_are_not_counted_again() -> None:
    assert usage_and_tokenize([Recount(stream=stream(), prompt=20, text=None)]).verdict == "pass"
