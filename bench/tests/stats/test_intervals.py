"""Intervals hold what they promise: by exact sums where there are any, by simulation elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from math import comb
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice_bench.stats.binomial import at_most, cumulative
from sluice_bench.stats.intervals import (
    bootstrap_interval,
    mean,
    mean_interval,
    percentile_interval,
    percentile_ranks,
    share_interval,
)

from .simulators import covered, lognormal, standard_normal_quantile


def exactly(k: int, n: int, p: Fraction) -> Fraction:
    """P(X <= k)."""
    return sum((comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k + 1)), Fraction(0))


@given(st.integers(0, 60), st.integers(1, 19), st.integers(-2, 62))
def test_the_binomial_is_that_of_exact_fractions(n: int, twentieths: int, k: int) -> None:
    p = Fraction(twentieths, 20)
    assert at_most(k, n, float(p)) == pytest.approx(float(exactly(min(k, n), n, p)), abs=1e-13)


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_the_binomial_of_a_certainty(p: float) -> None:
    assert at_most(2, 5, p) == 1 - p
    assert at_most(5, 5, p) == 1


def test_a_million_trials_do_not_overflow() -> None:
    assert at_most(10_000, 1_000_000, 0.01) == pytest.approx(0.5, abs=0.01)
    assert len(list(cumulative(1_000_000, 0.01))) < 3_000


@pytest.mark.parametrize(("n", "p"), [(-1, 0.5), (3, 1.5), (3, math.nan)])
def test_the_binomial_of_nonsense(n: int, p: float) -> None:
    with pytest.raises(ValueError, match="binomial"):
        at_most(1, n, p)


def test_the_ranks_of_a_median_are_those_of_the_tables() -> None:
    assert percentile_ranks(100, 0.5) == (40, 61)
    assert percentile_ranks(6, 0.5) == (1, 6)
    assert percentile_ranks(5, 0.5) is None


@pytest.mark.parametrize("n", [8, 11, 40, 63])
@pytest.mark.parametrize("twentieths", [3, 10, 14])
def test_ranks_are_as_close_as_the_confidence_allows(n: int, twentieths: int) -> None:
    p, tail = Fraction(twentieths, 20), Fraction(1, 40)
    lows = [rank for rank in range(1, n + 1) if exactly(rank - 1, n, p) <= tail]
    highs = [rank for rank in range(1, n + 1) if exactly(rank - 1, n, p) >= 1 - tail]
    expected = (max(lows), min(highs)) if lows and highs else None
    assert percentile_ranks(n, float(p)) == expected


@pytest.mark.parametrize(("share", "n"), [(0.5, 40), (0.9, 100), (0.99, 700)])
def test_percentile_intervals_hold_the_truth_19_times_in_20(share: float, n: int) -> None:
    source, truth = Random(11), math.exp(0.6 * standard_normal_quantile(share))
    estimates = [percentile_interval(lognormal(source, n), share) for _ in range(300)]
    assert all(estimate.claimed for estimate in estimates)
    held = sum(covered(estimate.low, truth, estimate.high) for estimate in estimates)
    assert 276 <= held < 300  # 285 expected, more because ranks are whole; never the trivial interval


def test_too_few_values_are_shown_without_a_claim() -> None:
    few = percentile_interval([float(value) for value in range(661)], 0.99)
    assert (few.value, few.low, few.high, few.n) == (654.0, None, None, 661)
    assert not few.claimed and not few.within(1.0)
    assert percentile_interval([float(value) for value in range(662)], 0.99).claimed


@given(st.lists(st.integers(0, 9), min_size=11, max_size=80))
def test_bounds_are_values_that_occurred_on_either_side(values: list[int]) -> None:
    estimate = percentile_interval([float(value) for value in values], 0.5)
    assert estimate.low in values and estimate.high in values
    assert estimate.low is not None and estimate.high is not None
    assert estimate.low <= estimate.value <= estimate.high


def test_the_exact_interval_of_a_share() -> None:
    half = share_interval(5, 10)
    assert (half.low, half.high) == (pytest.approx(0.18709, abs=1e-5), pytest.approx(0.81291, abs=1e-5))
    none, all_ = share_interval(0, 10), share_interval(10, 10)
    assert (none.low, none.high) == (0.0, pytest.approx(1 - 0.025**0.1))
    assert (all_.low, all_.high) == (pytest.approx(0.025**0.1), 1.0)


@given(st.integers(1, 40), st.data())
def test_at_its_bounds_a_share_is_just_not_refuted(n: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, n))
    estimate = share_interval(hits, n)
    assert estimate.low is not None and estimate.high is not None
    if hits:
        assert 1 - at_most(hits - 1, n, estimate.low) == pytest.approx(0.025, abs=1e-9)
    if hits < n:
        assert at_most(hits, n, estimate.high) == pytest.approx(0.025, abs=1e-9)


@pytest.mark.parametrize(("hits", "n"), [(0, 0), (3, 2), (-1, 2)])
def test_a_share_of_nothing_is_refused(hits: int, n: int) -> None:
    with pytest.raises(ValueError, match="share"):
        share_interval(hits, n)


def test_the_bootstrap_of_a_mean_holds_the_truth() -> None:
    source, truth = Random(5), math.exp(0.6**2 / 2)
    held = 0
    for _ in range(100):
        estimate = bootstrap_interval(lognormal(source, 60), mean, source, resamples=200)
        held += covered(estimate.low, truth, estimate.high)
    assert 86 <= held <= 99


def test_tokens_of_one_request_are_not_independent_and_count_as_one_unit() -> None:
    """Each request has its own pace: a thousand tokens of ten requests are ten observations."""
    source = Random(6)
    requests = [[source.uniform(10, 30)] * 100 for _ in range(10)]
    tokens = [[gap] for request in requests for gap in request]

    def mean_gap(units: Sequence[list[float]]) -> float:
        return mean([gap for unit in units for gap in unit])

    by_request = bootstrap_interval(requests, mean_gap, Random(1), resamples=200)
    by_token = bootstrap_interval(tokens, mean_gap, Random(1), resamples=200)
    assert by_request.value == by_token.value
    assert by_request.high is not None and by_request.low is not None
    assert by_token.high is not None and by_token.low is not None
    assert by_request.high - by_request.low > 6 * (by_token.high - by_token.low)


def test_neighbours_drawn_together_widen_the_interval_of_a_sticky_series() -> None:
    source, value, values = Random(7), 0.0, []
    for _ in range(400):
        value = 0.9 * value + source.gauss(0, 1)
        values.append(value)
    single = bootstrap_interval(values, mean, Random(1), resamples=300)
    blocks = bootstrap_interval(values, mean, Random(1), resamples=300, block=25)
    assert single.high is not None and single.low is not None
    assert blocks.high is not None and blocks.low is not None
    assert blocks.high - blocks.low > 2 * (single.high - single.low)


def test_the_same_seed_gives_the_same_bounds() -> None:
    values = lognormal(Random(1), 50)
    assert mean_interval(values, Random(9)) == mean_interval(values, Random(9))
    assert mean_interval(values, Random(9)) != mean_interval(values, Random(10))


def test_one_unit_has_no_bounds_and_none_no_figure() -> None:
    assert not mean_interval([3.0], Random(1)).claimed
    with pytest.raises(ValueError, match="units"):
        mean_interval([], Random(1))
    with pytest.raises(ValueError, match="blocks"):
        bootstrap_interval([1.0], mean, Random(1), block=0)
