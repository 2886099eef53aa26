"""Rates that change: the integral, its inverse, and what is refused."""

from __future__ import annotations

import pytest

from sluice_bench.rate_stages import Stage, StageClock

STAGES = [
    Stage(from_rate=2.0, to_rate=10.0, seconds=4.0),
    Stage(from_rate=10.0, to_rate=0.0, seconds=4.0),
    Stage(from_rate=0.0, to_rate=3.0, seconds=7.0),
    Stage(from_rate=5.0, to_rate=5.0, seconds=3.0),
    Stage(from_rate=1.0, to_rate=16.0, seconds=8.0, growth="exponential"),
    Stage(from_rate=16.0, to_rate=1.0, seconds=8.0, growth="exponential"),
    Stage(from_rate=4.0, to_rate=4.0, seconds=2.0, growth="exponential"),
]


def rate(stage: Stage, at_s: float) -> float:
    share = at_s / stage.seconds
    if stage.growth == "linear":
        return stage.from_rate + share * (stage.to_rate - stage.from_rate)
    return stage.from_rate * float((stage.to_rate / stage.from_rate) ** share)


@pytest.mark.parametrize("stage", STAGES)
def test_what_is_expected_is_the_integral_of_the_rate(stage: Stage) -> None:
    steps = 4000
    width = stage.seconds / steps
    summed = sum(rate(stage, (step + 0.5) * width) for step in range(steps)) * width
    assert stage.total == pytest.approx(summed, rel=1e-6)


@pytest.mark.parametrize("stage", STAGES)
def test_elapsed_is_the_inverse_of_expected(stage: Stage) -> None:
    for tenths in range(1, 10):
        at_s = stage.seconds * tenths / 10
        assert stage.elapsed(stage.expected(at_s)) == pytest.approx(at_s, rel=1e-9)


def test_the_clock_goes_through_stages_and_on_at_the_last_rate() -> None:
    clock = StageClock(
        [Stage(from_rate=2.0, to_rate=2.0, seconds=5.0), Stage(from_rate=4.0, to_rate=4.0, seconds=5.0)]
    )
    assert clock.after(0, 6.0) == 3_000_000_000
    assert clock.after(3_000_000_000, 8.0) == 6_000_000_000
    assert clock.after(0, 34.0) == 11_000_000_000
    assert clock.after(20_000_000_000, 4.0) == 21_000_000_000


@pytest.mark.parametrize(
    "stage",
    [
        Stage(from_rate=-1.0, to_rate=1.0, seconds=1.0),
        Stage(from_rate=1.0, to_rate=float("nan"), seconds=1.0),
        Stage(from_rate=1.0, to_rate=1.0, seconds=0.0),
        Stage(from_rate=0.0, to_rate=1.0, seconds=1.0, growth="exponential"),
    ],
)
def test_a_stage_without_sense_is_refused(stage: Stage) -> None:
    with pytest.raises(ValueError, match="stage needs"):
        StageClock([stage])


def test_no_stages_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        StageClock([])
