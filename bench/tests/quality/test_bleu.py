"""BLEU against values computed by hand."""

from __future__ import annotations

from random import Random

import pytest

from sluice_bench.quality.bleu import bleu, bleu_interval, overlap


def score(text: str, reference: str) -> float:
    return bleu([overlap(text, reference)])


def test_the_same_text_has_one() -> None:
    assert score("the cat sat on the mat", "the cat sat on the mat") == pytest.approx(1.0)


def test_a_word_counts_as_often_as_the_reference_has_it() -> None:
    """The example of the paper: seven times `the`, of which the reference has two."""
    found = overlap("the the the the the the the", "the cat is on the mat")

    assert (found.matched[0], found.offered[0]) == (2, 7)


def test_one_other_word_of_six() -> None:
    """1-grams 5 of 6, 2-grams 3 of 5, 3-grams 2 of 4, 4-grams 1 of 3, no penalty."""
    by_hand = (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25

    assert score("the cat sat on a mat", "the cat sat on the mat") == pytest.approx(by_hand)


def test_a_text_that_is_too_short_pays_for_it() -> None:
    """All sequences match, 4 words for 6: e to the 1 - 6/4."""
    assert score("the cat sat on", "the cat sat on the mat") == pytest.approx(0.6065306597126334)


def test_a_text_that_is_longer_pays_in_precision_alone() -> None:
    """1-grams 6 of 8, 2-grams 5 of 7, 3-grams 4 of 6, 4-grams 3 of 5."""
    by_hand = (6 / 8 * 5 / 7 * 4 / 6 * 3 / 5) ** 0.25

    assert score("the cat sat on the mat all day", "the cat sat on the mat") == pytest.approx(by_hand)


def test_texts_are_counted_together_and_not_averaged() -> None:
    """1-grams 8 of 8, 2-grams 6 of 6, 3-grams 4 of 4 and 4-grams 2 of 2 would be 1; one word is another."""
    pairs = [("a b c d", "a b c d"), ("a b c e", "a b c d")]
    by_hand = (7 / 8 * 5 / 6 * 3 / 4 * 1 / 2) ** 0.25

    assert bleu([overlap(*pair) for pair in pairs]) == pytest.approx(by_hand)


def test_signs_are_words_and_case_counts() -> None:
    assert overlap("Yes, it is.", "yes, it is.").matched == (4, 3, 2, 1)
    assert overlap("Yes, it is.", "yes, it is.").offered == (5, 4, 3, 2)


def test_without_a_match_of_four_words_it_is_zero() -> None:
    assert score("a b c x d e f", "a b c y d e f") == 0.0
    assert score("", "a b c d") == 0.0


def test_the_interval_holds_the_value() -> None:
    pairs = [(f"one two three four five {n}", "one two three four five six") for n in range(12)]

    found = bleu_interval(pairs, Random(1))

    assert found.low is not None and found.high is not None
    assert found.low <= found.value <= found.high
    assert found.value == pytest.approx(bleu([overlap(*pair) for pair in pairs]))
