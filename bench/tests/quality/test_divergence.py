"""The divergence that a few alternatives allow: never above the true one, and equal to an obvious twin."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice_bench.quality.divergence import NotComparable, diverge, divergence_at
from sluice_bench.quality.prompt_logprobs import Prediction

VOCABULARY = 40


def distribution(source: Random, sharpness: float) -> dict[str, float]:
    """Log-probabilities of a whole vocabulary."""
    logits = [source.gauss(0, sharpness) for _ in range(VOCABULARY)]
    total = math.fsum(math.exp(logit) for logit in logits)
    return {f"t{place}": logit - math.log(total) for place, logit in enumerate(logits)}


def top(whole: dict[str, float], count: int, actual: str) -> dict[str, float]:
    """As an API returns it: the most likely ones and the token that stands there."""
    likely = sorted(whole, key=lambda token: -whole[token])[:count]
    return {token: whole[token] for token in {*likely, actual}}


def true_divergence(p: dict[str, float], q: dict[str, float]) -> float:
    return math.fsum(math.exp(p[token]) * (p[token] - q[token]) for token in p)


def bucketed(p: dict[str, float], q: dict[str, float], kept: set[str]) -> float:
    """By the definition: the kept tokens one by one, all others as one outcome."""
    rest_p = math.fsum(math.exp(p[token]) for token in p if token not in kept)
    rest_q = math.fsum(math.exp(q[token]) for token in q if token not in kept)
    terms = [math.exp(p[token]) * math.log(math.exp(p[token]) / math.exp(q[token])) for token in kept]
    return math.fsum([*terms, rest_p * math.log(rest_p / rest_q)])


@given(st.integers(0, 10**6), st.sampled_from([1, 5, 20]), st.floats(0.2, 4))
def test_it_is_the_bucketed_one_and_never_above_the_true_one(seed: int, count: int, sharpness: float) -> None:
    source = Random(seed)
    p, q = distribution(source, sharpness), distribution(source, sharpness)
    seen_p, seen_q = top(p, count, "t0"), top(q, count, "t0")

    found, rest = divergence_at(seen_p, seen_q)

    kept = seen_p.keys() & seen_q.keys()
    assert found == pytest.approx(bucketed(p, q, set(kept)), abs=1e-6)
    assert found <= true_divergence(p, q) + 1e-9
    assert rest == pytest.approx(1 - math.fsum(math.exp(p[token]) for token in kept), abs=1e-9)


def test_with_the_whole_vocabulary_it_is_the_true_one() -> None:
    source = Random(3)
    p, q = distribution(source, 1.5), distribution(source, 1.5)

    assert divergence_at(p, q)[0] == pytest.approx(true_divergence(p, q), abs=1e-6)


def test_two_that_are_alike_do_not_differ() -> None:
    seen = top(distribution(Random(5), 2), 5, "t3")

    assert divergence_at(seen, seen)[0] == pytest.approx(0, abs=1e-12)


def test_what_rounding_takes_below_nothing_is_nothing() -> None:
    """Rounded probabilities may sum to more than 1."""
    over = {"a": math.log(0.7), "b": math.log(0.3001)}

    assert divergence_at(over, over) == (0.0, 0.0)


def windows(tokens: list[list[str]], alternatives: dict[str, float]) -> list[list[Prediction]]:
    return [[Prediction(token, -0.5, alternatives) for token in window] for window in tokens]


def test_figures_are_means_over_tokens_and_not_over_windows() -> None:
    half = {"a": math.log(0.5), "b": math.log(0.5)}
    sure = {"a": math.log(0.9), "b": math.log(0.1)}
    reference = [*windows([["a"]], half), *windows([["a", "b", "a"]], half)]
    other = [*windows([["a"]], sure), *windows([["a", "b", "a"]], half)]

    found = diverge(reference, other, 2, Random(1))

    once = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)
    assert found.kl_lower_bound.value == pytest.approx(once / 4)
    assert found.kl_lower_bound.n == 2
    assert found.tokens == 4
    assert found.remainder == pytest.approx(0, abs=1e-12)


def test_the_share_of_equal_top_tokens() -> None:
    first, second = {"a": -0.1, "b": -2.5}, {"a": -2.5, "b": -0.1}
    reference = windows([["a", "a"], ["a", "a"]], first)
    other = [*windows([["a", "a"]], second), *windows([["a", "a"]], first)]

    assert diverge(reference, other, 2, Random(1)).same_top_token.value == 0.5


def test_other_tokens_cannot_be_compared() -> None:
    reference, other = windows([["a", "b"]], {"a": -0.1}), windows([["ab"]], {"ab": -0.1})

    with pytest.raises(NotComparable, match="different tokens"):
        diverge(reference, other, 5, Random(1))
