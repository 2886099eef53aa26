"""Schedules: known before the run, the same everywhere, and distributed as they say."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest

from sluice_bench.arrivals import (
    NS_PER_S,
    Schedule,
    constant,
    gamma,
    poisson,
    ramp,
    read_trace,
    stages,
    trace,
)
from sluice_bench.rate_stages import Stage

DRAWN: dict[str, Callable[[int, int], tuple[int, ...]]] = {
    "poisson": lambda count, seed: poisson(10.0, count, seed),
    "even gamma": lambda count, seed: gamma(10.0, 0.5, count, seed),
    "bursty gamma": lambda count, seed: gamma(10.0, 3.0, count, seed),
    "ramp": lambda count, seed: ramp(1.0, 20.0, 30.0, count, seed),
    "exponential ramp": lambda count, seed: ramp(1.0, 20.0, 30.0, count, seed, "exponential"),
}
DIGESTS = {
    "poisson": "b3e53855277e67a14dd01d0b0e72731b9de303fd48afc7a9feb2d379380ac29f",
    "even gamma": "ee08491d7a315e68f06c592293e4ba1bf70e53e788f9944ae08dbfa854fa57dc",
    "bursty gamma": "1a3d99eaeb069b1e2dfd7ed4edb2c96027b9d72e4690b66c73d4cb2c68d1b5ea",
    "ramp": "0e96393215a5d07e75586c3f1f19f290e5ab9b3446221d2fc791d052804a0912",
    "exponential ramp": "3947697982cd09751e70985b8ec434d13bafe341c6949daa02373d5d627f2641",
}


def gaps_s(offsets: Sequence[int]) -> list[float]:
    return [(after - before) / NS_PER_S for before, after in pairwise((0, *offsets))]


def kolmogorov_smirnov(values: Sequence[float], cdf: Callable[[float], float]) -> float:
    """√n times the largest distance between empirical distribution and `cdf`: over 1.63 once in a hundred."""
    ordered = sorted(values)
    n = len(ordered)
    edges = ((index / n, (index + 1) / n, cdf(value)) for index, value in enumerate(ordered))
    return math.sqrt(n) * max(max(p - low, high - p) for low, high, p in edges)


def exponential_cdf(rate: float) -> Callable[[float], float]:
    return lambda x: -math.expm1(-rate * x)


def test_constant_gaps_are_even() -> None:
    assert constant(4.0, 4) == (0, 250_000_000, 500_000_000, 750_000_000)


@pytest.mark.parametrize("name", DRAWN)
def test_the_same_seed_gives_the_same_schedule_everywhere(name: str) -> None:
    assert Schedule.of("poisson", DRAWN[name](1000, 7)).sha256 == DIGESTS[name]
    assert DRAWN[name](100, 7) != DRAWN[name](100, 8)


@pytest.mark.parametrize("name", DRAWN)
def test_a_longer_schedule_begins_with_the_shorter_one(name: str) -> None:
    """Gaps rescaled to fill a fixed time would break this."""
    assert DRAWN[name](100, 1)[:40] == DRAWN[name](40, 1)


@pytest.mark.parametrize("name", DRAWN)
def test_requests_are_never_due_before_earlier_ones(name: str) -> None:
    offsets = DRAWN[name](2000, 5)
    assert offsets[0] >= 0
    assert list(offsets) == sorted(offsets)


def test_poisson_gaps_are_exponential() -> None:
    assert kolmogorov_smirnov(gaps_s(poisson(50.0, 20_000, seed=3)), exponential_cdf(50.0)) < 1.63
    # So many that a process one part in thirty faster is seen.
    assert kolmogorov_smirnov(gaps_s(poisson(51.7, 20_000, seed=3)), exponential_cdf(50.0)) > 1.63


def test_the_time_that_poisson_arrivals_take_is_not_fixed() -> None:
    """n requests at rate r take n/r on average, with a standard deviation of √n/r."""
    ends = [poisson(10.0, 100, seed)[-1] / NS_PER_S for seed in range(400)]
    mean = sum(ends) / len(ends)
    deviation = math.sqrt(sum((end - mean) ** 2 for end in ends) / len(ends))
    assert mean == pytest.approx(10.0, abs=0.2)
    assert deviation == pytest.approx(1.0, rel=0.15)


def test_gamma_gaps_have_their_distribution_below_and_above_a_cv_of_1() -> None:
    """Shape 4 is Erlang's distribution, shape 1/2 that of a squared normal: both have closed forms."""

    def erlang4(x: float) -> float:
        scaled = 4 * 50.0 * x
        return 1 - math.exp(-scaled) * sum(scaled**k / math.factorial(k) for k in range(4))

    def squared_normal(x: float) -> float:
        return math.erf(math.sqrt(0.5 * 50.0 * x))

    even, bursty = gamma(50.0, 0.5, 20_000, seed=3), gamma(50.0, math.sqrt(2), 20_000, seed=3)
    assert kolmogorov_smirnov(gaps_s(even), erlang4) < 1.63
    assert kolmogorov_smirnov(gaps_s(bursty), squared_normal) < 1.63


@pytest.mark.parametrize("cv", [0.2, 1.0, 2.0, 4.0])
def test_gamma_gaps_have_the_rate_and_the_spread_asked_for(cv: float) -> None:
    gaps = gaps_s(gamma(20.0, cv, 40_000, seed=11))
    mean = sum(gaps) / len(gaps)
    deviation = math.sqrt(sum((gap - mean) ** 2 for gap in gaps) / len(gaps))
    assert mean == pytest.approx(0.05, rel=0.06)
    assert deviation / mean == pytest.approx(cv, rel=0.06)


@pytest.mark.parametrize("growth", ["linear", "exponential"])
def test_a_ramp_is_a_poisson_process_on_the_clock_of_its_integral(growth: str) -> None:
    stage = Stage(from_rate=5.0, to_rate=80.0, seconds=200.0, growth=growth)  # type: ignore[arg-type]
    offsets = [offset for offset in stages((stage,), 20_000, seed=2) if offset < 200 * NS_PER_S]
    clock = [stage.expected(offset / NS_PER_S) for offset in offsets]
    assert abs(len(offsets) - stage.total) < 3 * math.sqrt(stage.total)
    assert kolmogorov_smirnov([b - a for a, b in pairwise((0.0, *clock))], exponential_cdf(1.0)) < 1.63


def test_after_a_ramp_its_last_rate_stays() -> None:
    offsets = ramp(0.0, 50.0, 10.0, 20_000, seed=4)
    late = [offset for offset in offsets if offset > 10 * NS_PER_S]
    gaps = [(after - before) / NS_PER_S for before, after in pairwise(late)]
    assert len(offsets) - len(late) == pytest.approx(250, abs=48)
    assert kolmogorov_smirnov(gaps, exponential_cdf(50.0)) < 1.63


def test_stages_follow_one_another_and_may_pause() -> None:
    busy, pause = (
        Stage(from_rate=100.0, to_rate=100.0, seconds=5.0),
        Stage(from_rate=0.0, to_rate=0.0, seconds=3.0),
    )
    offsets = stages((busy, pause, busy), 1200, seed=9)
    seconds = [offset / NS_PER_S for offset in offsets]
    assert sum(at < 5 for at in seconds) == pytest.approx(500, abs=67)
    assert not any(5 <= at < 8 for at in seconds)
    assert sum(8 <= at < 13 for at in seconds) == pytest.approx(500, abs=67)


def test_requests_after_a_last_rate_of_0_are_refused() -> None:
    with pytest.raises(ValueError, match="ask for fewer"):
        ramp(10.0, 0.0, 2.0, 1000, seed=1)


def test_a_trace_is_replayed_to_the_nanosecond_from_its_first_time() -> None:
    stamps = read_trace("1700000000.000000001\n1700000000.5\n\n1700000000.5\n1700000002.25\n")
    assert trace(stamps, 4) == (0, 499_999_999, 499_999_999, 2_249_999_999)
    assert trace(stamps, 2) == (0, 499_999_999)
    assert trace((), 0) == ()


@pytest.mark.parametrize(
    ("text", "count", "complaint"),
    [
        ("0\n1\n", 3, "2 times, too few for 3"),
        ("0\n2\n1\n", 3, "must not go back"),
        ("0\nsoon\n", 1, "line 2 .* 'soon'"),
        ("nan\n", 1, "line 1"),
        ("1e400000000\n", 1, "line 1"),
    ],
)
def test_a_trace_that_cannot_be_replayed_gets_a_sentence(text: str, count: int, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        trace(read_trace(text), count)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("inf"), float("nan")])
def test_a_rate_must_be_a_positive_number(rate: float) -> None:
    for draw in (
        lambda: constant(rate, 1),
        lambda: poisson(rate, 1, seed=1),
        lambda: gamma(rate, 1.0, 1, seed=1),
    ):
        with pytest.raises(ValueError, match="rate"):
            draw()


@pytest.mark.parametrize("cv", [0.0, -1.0, float("inf"), float("nan")])
def test_a_coefficient_of_variation_must_be_a_positive_number(cv: float) -> None:
    with pytest.raises(ValueError, match="coefficient"):
        gamma(1.0, cv, 1, seed=1)


def test_a_schedule_knows_how_it_was_made() -> None:
    schedule = Schedule.of("gamma", gamma(2.0, 3.0, 5, seed=6), rate_per_s=2.0, cv=3.0, seed=6)
    assert (schedule.kind, schedule.rate_per_s, schedule.cv, schedule.seed) == ("gamma", 2.0, 3.0, 6)
    assert schedule.sha256 != Schedule.of("gamma", schedule.offsets_ns[:-1]).sha256
