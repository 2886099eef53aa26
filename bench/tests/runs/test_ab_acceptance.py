"""What an A/B promises, of the whole of it: pilot, plan, coin, blocks and verdict, on servers whose truth is
known and whose noise is skewed, depends on what was before, comes in waves and drifts."""

from __future__ import annotations

from collections import Counter

from sluice_bench.runs.ab_run import AbPlan, run_ab

from .invented_slots import simulated


def verdicts(slowdown: float) -> Counter[str]:
    """Of 200 comparisons that were to find 5 %."""
    found: Counter[str] = Counter()
    for seed in range(200):
        plan = AbPlan(blocks=12, effect=0.05, most_blocks=60, seed=seed)
        [comparison] = run_ab(plan, simulated(1000 + seed, slowdown)).comparisons
        found[comparison.verdict] += 1
    return found


def test_the_false_positive_rate_is_at_most_5_percent_over_200_runs_of_a_against_a() -> None:
    found = verdicts(slowdown=1.0)
    assert found["slower"] + found["faster"] <= 10


def test_a_slowdown_of_5_percent_is_detected_with_a_power_of_95_percent() -> None:
    found = verdicts(slowdown=1.05)
    assert found["slower"] >= 190
    assert found["faster"] == 0
