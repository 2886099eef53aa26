"""What a claim about a tail needs, against the definition in exact fractions and against LoadGen's own
logs."""

from __future__ import annotations

from fractions import Fraction
from math import comb
from random import Random

import pytest

from sluice_bench.stats.tails import certified_bound, minimum_count

from .simulators import lognormal, standard_normal_quantile


@pytest.mark.parametrize(("share", "count"), [(0.5, 11), (0.9, 64), (0.95, 130), (0.99, 662), (0.999, 6636)])
def test_the_counts_are_those_of_mlperf(share: float, count: int) -> None:
    assert minimum_count(share) == count


@pytest.mark.parametrize(("share", "beyond"), [("0.5", 0), ("0.5", 3), ("0.9", 1), ("0.9", 4), ("0.95", 2)])
def test_a_count_is_the_first_at_which_chance_is_small_enough(share: str, beyond: int) -> None:
    def chance(n: int) -> Fraction:
        p = 1 - Fraction(share)
        return sum((comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(beyond + 1)), Fraction(0))

    n = minimum_count(float(share), beyond)
    assert chance(n) <= Fraction(1, 100) < chance(n - 1)


@pytest.mark.parametrize(("observations", "discarded"), [(2048, 172), (2116, 178), (2145, 181)])
def test_as_many_observations_are_set_aside_as_loadgen_reports(observations: int, discarded: int) -> None:
    """From published summaries: "Would discard 172 highest latency queries", p90."""
    ranks = [float(rank) for rank in range(1, observations + 1)]
    assert certified_bound(ranks, 0.9) == observations - discarded


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_nothing_is_certified_below_the_minimum(share: float) -> None:
    least = minimum_count(share)
    values = [float(value) for value in range(least)]
    assert certified_bound(values, share) == least - 1
    assert certified_bound(values[1:], share) is None
    assert certified_bound([], share) is None


def test_a_certified_bound_is_hardly_ever_below_the_truth() -> None:
    source, truth = Random(4), standard_normal_quantile(0.9)
    wrong = 0
    for _ in range(400):
        bound = certified_bound([source.gauss(0, 1) for _ in range(150)], 0.9)
        wrong += bound is None or bound < truth
    assert wrong <= 10  # 1 % of 400 are 4


def test_the_bound_closes_in_with_more_observations() -> None:
    values = lognormal(Random(2), 20_000)
    bounds = [certified_bound(values[:n], 0.95) for n in (200, 2_000, 20_000)]
    assert bounds[0] is not None and bounds[1] is not None and bounds[2] is not None
    assert bounds[0] > bounds[1] > bounds[2]


@pytest.mark.parametrize(("share", "beyond"), [(0.0, 1), (1.0, 1), (0.9, -1)])
def test_there_is_no_certificate_for_nonsense(share: float, beyond: int) -> None:
    with pytest.raises(ValueError, match="percentile"):
        minimum_count(share, beyond)
