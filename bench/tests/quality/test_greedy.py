"""How far greedy answers agree."""

from __future__ import annotations

from random import Random

import pytest

from sluice_bench.quality.greedy import GreedyAnswer, agree, common_share


def answer(*tokens: str) -> GreedyAnswer:
    return GreedyAnswer("".join(tokens), tokens)


@pytest.mark.parametrize(
    ("ours", "theirs", "share"),
    [
        (answer("a", "b", "c"), answer("a", "b", "c"), 1.0),
        (answer("a", "b", "c"), answer("a", "x", "c"), 1 / 3),
        (answer("a", "b"), answer("a", "b", "c", "d"), 0.5),
        (answer("x"), answer("a"), 0.0),
        (answer(), answer(), 1.0),
        (answer("a"), GreedyAnswer("a", None), None),
    ],
)
def test_what_follows_the_first_difference_does_not_count(
    ours: GreedyAnswer, theirs: GreedyAnswer, share: float | None
) -> None:
    assert common_share(ours, theirs) == share


def test_answers_are_equal_or_not_and_half_equal() -> None:
    reference = [answer("a", "b"), answer("c", "d"), answer("e", "f"), answer("g", "h")]
    other = [answer("a", "b"), answer("c", "x"), answer("e", "f"), answer("y", "h")]

    found = agree(reference, other, 2, Random(1))

    assert (found.same_answers.value, found.same_answers.n) == (0.5, 4)
    assert found.common_share is not None
    assert found.common_share.value == pytest.approx((1 + 0.5 + 1 + 0) / 4)


def test_a_text_may_be_the_same_though_its_tokens_are_not_known() -> None:
    found = agree([GreedyAnswer("yes", None)], [answer("yes")], 4, Random(1))

    assert found.same_answers.value == 1.0
    assert found.common_share is None
