"""Text is text however a server cuts and names it."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from sluice_bench.generated_text import GeneratedText, Kind, Piece, pieces, size


def digest(*events: tuple[int, list[Piece]]) -> str:
    text = GeneratedText()
    for choice, found in events:
        text.add(choice, found)
    return text.sha256()


def content(text: str) -> list[Piece]:
    return pieces({}, {"content": text})


@given(st.text(min_size=1, max_size=40), st.lists(st.integers(0, 40), max_size=6))
def test_the_digest_is_of_the_text_and_not_of_its_pieces(text: str, cuts: list[int]) -> None:
    ends = sorted({min(cut, len(text)) for cut in cuts} | {len(text)})
    parts = [text[a:b] for a, b in zip([0, *ends], ends, strict=False)]
    assert digest(*((0, content(part)) for part in parts)) == hashlib.sha256(text.encode()).hexdigest()


def test_choices_that_take_turns_are_put_in_order() -> None:
    mixed = digest((1, content("c")), (0, content("a")), (1, content("d")), (0, content("b")))
    assert mixed == hashlib.sha256(b"ab\0cd").hexdigest()


def test_reasoning_under_both_of_its_names_counts_once() -> None:
    found = pieces({}, {"reasoning_content": "hm", "reasoning": "hm", "content": ""})
    assert found == [Piece(Kind.REASONING, "hm")]


def test_streamed_and_whole_tool_calls_are_the_same_text() -> None:
    call = {"name": "add", "arguments": '{"a": 1}'}
    whole = digest((0, pieces({}, {"tool_calls": [{"function": call}]})))
    first = {"index": 0, "function": {"name": "add", "arguments": ""}}
    rest = [{"index": 0, "function": {"arguments": part}} for part in ('{"a"', ": 1}")]
    assert whole == digest(*((0, pieces({}, {"tool_calls": [part]})) for part in [first, *rest]))


def test_what_is_no_text_has_no_size_and_no_digest() -> None:
    odd = pieces({"text": None}, {"content": 3, "tool_calls": [None, {"function": "f"}, {"function": {}}]})
    assert (odd, size(odd), digest((0, odd))) == ([], 0, "")


def test_size_is_in_bytes() -> None:
    assert size(content("ä€")) == 5
