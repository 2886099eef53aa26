"""Looked at all the time, an interval must still hold: 300 simulated servers, each watched until it suits."""

from __future__ import annotations

import math
from random import Random

import pytest

from sluice_bench.stats.intervals import percentile_interval
from sluice_bench.stats.sequential import LatencyMeanSequence, MeanSequence, QuantileSequence

from .simulators import covered, lognormal, standard_normal_quantile

SERVERS = 300


def misses_ever(share: float, seed: int, most: int, every: int) -> bool:
    """Whether the sequence excluded the truth at any look."""
    source, sequence = Random(seed), QuantileSequence(share, planned=most // 2)
    truth = math.exp(0.6 * standard_normal_quantile(share))
    for count, value in enumerate(lognormal(source, most), start=1):
        sequence.add(value)
        if count % every == 0:
            estimate = sequence.estimate()
            if not covered(estimate.low, truth, estimate.high):
                return True
    return False


@pytest.mark.parametrize(("share", "most"), [(0.5, 400), (0.99, 1200)])
def test_a_percentile_is_held_at_all_looks_by_19_servers_in_20(share: float, most: int) -> None:
    misses = sum(misses_ever(share, seed, most, every=10) for seed in range(SERVERS))
    assert misses <= 0.05 * SERVERS


def test_an_ordinary_interval_is_not() -> None:
    """The reason for all this: the same looks at intervals for one fixed count."""
    misses = 0
    for seed in range(100):
        values = lognormal(Random(seed), 400)
        looks = (percentile_interval(values[:count], 0.5) for count in range(20, 401, 10))
        misses += not all(covered(look.low, 1.0, look.high) for look in looks)
    assert misses > 10


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_bounds_are_those_of_the_martingale_written_out(share: float) -> None:
    planned = 200
    prior = (planned / 8 * share, planned / 8 * (1 - share))

    def log_beta(a: float, b: float) -> float:
        return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)

    def believable(below: int, n: int) -> bool:
        mixture = log_beta(prior[0] + below, prior[1] + n - below) - log_beta(*prior)
        return mixture - below * math.log(share) - (n - below) * math.log(1 - share) < math.log(20)

    source, sequence, values = Random(8), QuantileSequence(share, planned=planned), []
    for n in range(1, 301):
        values.append(source.random())
        sequence.add(values[-1])
        if n % 20 == 0 and n >= 80:
            counts = [below for below in range(n + 1) if believable(below, n)]
            ordered = [None, *sorted(values), None]
            estimate = sequence.estimate()
            assert (estimate.low, estimate.high) == (ordered[counts[0]], ordered[counts[-1] + 1])


def test_the_price_is_an_interval_about_half_as_wide_again() -> None:
    values = lognormal(Random(3), 2000)
    sequence = QuantileSequence(0.5, planned=2000)
    for value in values:
        sequence.add(value)
    watched, fixed = sequence.estimate(), percentile_interval(values, 0.5)
    assert watched.value == fixed.value
    assert watched.low is not None and watched.high is not None
    assert fixed.low is not None and fixed.high is not None
    assert 1.2 < (watched.high - watched.low) / (fixed.high - fixed.low) < 2.0


def test_a_run_stops_when_its_median_is_known_well_enough() -> None:
    source, sequence = Random(1), QuantileSequence(0.5, planned=800)
    count = 0
    while count < 5000:
        sequence.add(lognormal(source, 1)[0])
        count += 1
        if count % 50 == 0 and sequence.estimate().within(0.10):
            break
    assert 200 < count < 1200
    assert abs(sequence.estimate().value - 1) < 0.15


def test_few_observations_claim_nothing() -> None:
    sequence = QuantileSequence(0.99)
    for value in range(661):
        sequence.add(float(value))
    assert not sequence.estimate().claimed
    with pytest.raises(ValueError, match="nothing"):
        QuantileSequence(0.5).estimate()


def test_values_that_are_all_equal_are_no_trouble() -> None:
    sequence = QuantileSequence(0.5)
    for _ in range(100):
        sequence.add(7.0)
    estimate = sequence.estimate()
    assert (estimate.low, estimate.value, estimate.high) == (7.0, 7.0, 7.0)


@pytest.mark.parametrize("chance", [0.1, 0.9])
def test_a_share_is_held_at_all_looks(chance: float) -> None:
    misses = 0
    for seed in range(SERVERS):
        source, sequence = Random(seed), MeanSequence()
        held = True
        for _ in range(300):
            sequence.add(float(source.random() < chance))
            estimate = sequence.estimate()
            held = held and covered(estimate.low, chance, estimate.high)
        misses += not held
    assert misses <= 0.05 * SERVERS


def test_a_mean_is_closed_in_on_and_the_sooner_the_steadier() -> None:
    def width(spread: float) -> float:
        source, sequence = Random(2), MeanSequence(bound=10.0)
        for _ in range(2000):
            sequence.add(4 + spread * (source.random() - 0.5))
        estimate = sequence.estimate()
        assert estimate.low is not None and estimate.high is not None
        assert estimate.low < 4 < estimate.high
        return estimate.high - estimate.low

    assert width(0.5) < 0.5 * width(8.0) < 0.5


def test_a_bet_made_with_knowledge_of_its_outcome_would_be_caught() -> None:
    """The bounds are those of the paper's formulas, in which each bet uses only what came before."""
    values = [0.2, 0.9, 0.4, 0.4, 1.0, 0.0, 0.3]
    sequence, bets, won, penalty = MeanSequence(), 0.0, 0.0, 0.0
    for i, value in enumerate(values):
        before = values[:i]
        guesses = [(0.5 + sum(values[:j])) / (j + 1) for j in range(1, i + 1)]
        variance = (0.25 + sum((x - g) ** 2 for x, g in zip(before, guesses, strict=True))) / (i + 1)
        bet = min(0.5, math.sqrt(2 * math.log(40) / (variance * (i + 1) * math.log(i + 2))))
        guess = (0.5 + sum(before)) / (i + 1)
        bets, won = bets + bet, won + bet * value
        penalty += (value - guess) ** 2 * (-math.log(1 - bet) - bet)
        sequence.add(value)
    estimate = sequence.estimate()
    centre, reach = won / bets, (math.log(40) + penalty) / bets
    assert estimate.low == pytest.approx(max(0, centre - reach))
    assert estimate.high == pytest.approx(min(1, centre + reach))


def test_values_outside_the_bounds_are_refused() -> None:
    with pytest.raises(ValueError, match="between"):
        MeanSequence(bound=1.0).add(1.5)
    with pytest.raises(ValueError, match="positive"):
        MeanSequence(bound=0.0)
    with pytest.raises(ValueError, match="nothing"):
        MeanSequence().estimate()
    with pytest.raises(ValueError, match="percentile"):
        QuantileSequence(1.0)


def misses_mean_ever(seed: int, most: int) -> bool:
    source, sequence, truth = Random(seed), LatencyMeanSequence(planned=most // 2), math.exp(0.18)
    for count, value in enumerate(lognormal(source, most), start=1):
        sequence.add(value)
        if count % 10 == 0:
            estimate = sequence.estimate()
            if not covered(estimate.low, truth, estimate.high):
                return True
    return False


def test_a_mean_latency_is_held_at_all_looks_by_19_servers_in_20() -> None:
    assert sum(misses_mean_ever(seed, 1000) for seed in range(SERVERS)) <= 0.05 * SERVERS


def test_a_mean_latency_claims_nothing_early_and_its_interval_is_that_of_the_paper() -> None:
    source, sequence, planned = Random(6), LatencyMeanSequence(planned=400), 400
    values = lognormal(source, 400)
    for value in values[:99]:
        sequence.add(value)
    assert not sequence.estimate().claimed
    for value in values[99:]:
        sequence.add(value)
    found = sequence.estimate()
    mean = sum(values) / 400
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / 399)
    rho2 = (-2 * math.log(0.05) + math.log(-2 * math.log(0.05) + 1)) / planned
    reach = deviation * math.sqrt(
        2 * (400 * rho2 + 1) / (400**2 * rho2) * math.log(math.sqrt(400 * rho2 + 1) / 0.05)
    )
    assert (found.value, found.n) == (pytest.approx(mean), 400)
    assert (found.high or 0) - found.value == found.value - (found.low or 0) == pytest.approx(reach)
    with pytest.raises(ValueError, match="nothing"):
        LatencyMeanSequence().estimate()
    with pytest.raises(ValueError, match="planned"):
        LatencyMeanSequence(planned=0)
