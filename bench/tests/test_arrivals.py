"""Schedules: known before the run, the same everywhere."""

from __future__ import annotations

import hashlib

import pytest

from sluice_bench.arrivals import NS_PER_S, constant, poisson


def test_constant_gaps_are_even() -> None:
    assert constant(4.0, 4) == (0, 250_000_000, 500_000_000, 750_000_000)


def test_the_same_seed_gives_the_same_poisson_schedule() -> None:
    digest = hashlib.sha256(repr(poisson(10.0, 1000, seed=7)).encode()).hexdigest()
    assert digest == "0ec40290fb41a791ec6724fd3d95c0496be133433cc9622d73c1da639b230dcd"
    assert poisson(10.0, 1000, seed=7) != poisson(10.0, 1000, seed=8)


def test_poisson_gaps_have_the_mean_and_the_spread_of_an_exponential() -> None:
    offsets = poisson(50.0, 20_000, seed=3)
    gaps = [(b - a) / NS_PER_S for a, b in zip((0, *offsets), offsets, strict=False)]
    mean = sum(gaps) / len(gaps)
    variance = sum((gap - mean) ** 2 for gap in gaps) / len(gaps)
    assert mean == pytest.approx(0.02, rel=0.03)
    assert variance == pytest.approx(mean**2, rel=0.06)


def test_a_longer_schedule_begins_with_the_shorter_one() -> None:
    """Gaps rescaled to fill a fixed time would break this, and would not be Poisson."""
    assert poisson(5.0, 100, seed=1)[:40] == poisson(5.0, 40, seed=1)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("inf"), float("nan")])
def test_a_rate_must_be_a_positive_number(rate: float) -> None:
    with pytest.raises(ValueError, match="rate"):
        constant(rate, 1)
    with pytest.raises(ValueError, match="rate"):
        poisson(rate, 1, seed=1)
