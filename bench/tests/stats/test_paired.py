"""A/B: who is measured when, the test and its interval, and what it could show.

How often equals are told apart, and a slowdown of 5 % is found, is in `runs/test_ab_acceptance.py`.
"""

from __future__ import annotations

import math
from itertools import product
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice_bench.stats.paired import (
    ALPHA,
    MIN_BLOCKS,
    Block,
    blocks_needed,
    compare,
    minimum_detectable_effect,
    sign_flip_p,
    slot_order,
)

from .simulators import DriftingServer

LOGS = st.lists(st.integers(-50, 50).map(lambda n: n / 100), min_size=7, max_size=9)


def test_slots_in_a_row_instead_of_in_turn_would_tell_equals_apart() -> None:
    """The reason for blocks: all of A and then all of B, on the same drifting machine."""
    shown = 0
    for seed in range(60):
        server = DriftingServer(Random(seed))
        first, second = ([server.slot("a", 40) for _ in range(20)] for _ in range(2))
        blocks = [Block((first[i], first[i + 1]), (second[i], second[i + 1])) for i in range(0, 20, 2)]
        shown += compare("TTFT", blocks, Random(1)).verdict != "no difference shown"
    assert shown >= 5  # of 60; 1.5 would be chance


def test_a_steady_drift_cancels_out_within_a_block() -> None:
    for order in slot_order(20, Random(1)):
        figures = {"a": [], "b": []}  # type: dict[str, list[float]]
        for position, who in enumerate(order):
            figures[who].append(100.0 + 7 * position)
        assert sum(figures["a"]) == sum(figures["b"])


def test_a_coin_decides_who_begins() -> None:
    orders = slot_order(200, Random(5))
    assert set(orders) == {("a", "b", "b", "a"), ("b", "a", "a", "b")}
    assert 70 < sum(order[0] == "a" for order in orders) < 130
    assert slot_order(200, Random(5)) == orders


@given(LOGS)
def test_p_is_the_share_of_sign_patterns_that_are_as_extreme(logs: list[float]) -> None:
    seen = abs(sum(round(log * 100) for log in logs))
    patterns = list(product((1, -1), repeat=len(logs)))
    extreme = sum(
        abs(sum(sign * round(log * 100) for sign, log in zip(signs, logs, strict=True))) >= seen
        for signs in patterns
    )
    assert sign_flip_p(logs, Random(0)) == pytest.approx(extreme / len(patterns))


def test_p_of_many_blocks_is_close_to_the_exact_one() -> None:
    source = Random(3)
    logs = [source.gauss(0.02, 0.05) for _ in range(13)]
    exact = sum(
        abs(sum(sign * log for sign, log in zip(signs, logs, strict=True))) >= abs(sum(logs)) - 1e-12
        for signs in product((1, -1), repeat=13)
    )
    assert sign_flip_p(logs, Random(1)) == pytest.approx(exact / 2**13, abs=0.02)


def test_the_smallest_p_of_seven_blocks_is_just_enough() -> None:
    assert sign_flip_p([0.1] * 7, Random(0)) == 2 / 2**7
    assert sign_flip_p([0.1] * 7, Random(0)) <= ALPHA
    assert sign_flip_p([0.1] * 6, Random(0)) > ALPHA


def as_blocks(logs: list[float]) -> list[Block]:
    return [Block((100.0, 100.0), (100 * math.exp(log), 100 * math.exp(log))) for log in logs]


@given(LOGS)
def test_the_interval_excludes_1_exactly_when_the_test_shows_a_difference(logs: list[float]) -> None:
    shifted = [log + 0.001 * i + 0.0003 for i, log in enumerate(logs)]  # no ties
    comparison = compare("TTFT", as_blocks(shifted), Random(0))
    low, high = comparison.ratio.low, comparison.ratio.high
    assert low is not None and high is not None
    assert low <= comparison.ratio.value <= high
    assert (comparison.verdict == "no difference shown") == (low <= 1 <= high)


def test_the_interval_of_the_ratio_holds_the_truth() -> None:
    held = 0
    for seed in range(150):
        source = Random(seed)
        ratio = compare("TTFT", DriftingServer(source, slowdown=1.1).blocks(10, requests=20), source).ratio
        assert ratio.low is not None and ratio.high is not None
        held += ratio.low <= 1.1 <= ratio.high
    assert held >= 139  # 146 expected


@pytest.mark.parametrize("blocks", [8, 12, 20])
def test_an_effect_as_large_as_the_detectable_one_is_detected_19_times_in_20(blocks: int) -> None:
    source, effects = Random(21), []
    for _ in range(100):
        effects.append(minimum_detectable_effect([source.gauss(0, 0.04) for _ in range(blocks)]))
    typical = math.log(1 + sum(effects) / len(effects))
    found = sum(
        sign_flip_p([source.gauss(typical, 0.04) for _ in range(blocks)], source) <= ALPHA for _ in range(200)
    )
    assert 180 <= found <= 199


def test_the_detectable_effect_knows_nothing_of_the_effect() -> None:
    source = Random(2)
    noise = [source.gauss(0, 0.03) for _ in range(10)]
    without = minimum_detectable_effect(noise)
    assert minimum_detectable_effect([log + 0.5 for log in noise]) == pytest.approx(without)
    assert minimum_detectable_effect([log * 2 for log in noise]) > 1.8 * without


def test_a_smaller_effect_needs_more_blocks() -> None:
    pilot = [0.03, -0.02, 0.01, -0.04, 0.02, 0.0] * 2
    counts = [blocks_needed(pilot, effect) for effect in (0.5, 0.05, 0.02, 0.01)]
    assert counts == sorted(counts)
    assert counts[0] == MIN_BLOCKS
    assert counts[3] == pytest.approx(4 * counts[2], abs=12)


def test_a_short_pilot_is_trusted_less() -> None:
    pilot = [0.05, -0.05] * 2
    assert blocks_needed(pilot, 0.05) > 2 * blocks_needed(pilot * 10, 0.05)


@pytest.mark.parametrize(
    ("factor", "more_is_better", "verdict"),
    [(1.2, False, "slower"), (0.8, False, "faster"), (1.2, True, "faster"), (0.8, True, "slower")],
)
def test_the_verdict_is_about_b(factor: float, more_is_better: bool, verdict: str) -> None:
    blocks = [Block((10.0 + i, 11.0), (factor * (10.0 + i), factor * 11.0)) for i in range(8)]
    comparison = compare("x", blocks, Random(1), more_is_better=more_is_better)
    assert comparison.verdict == verdict
    assert comparison.ratio.value == pytest.approx(factor)
    assert (comparison.blocks, comparison.ratio.confidence) == (8, 0.975)
    assert comparison.b.value == pytest.approx(factor * comparison.a.value)


def test_too_few_blocks_and_impossible_figures_are_refused() -> None:
    good = Block((1.0, 2.0), (1.0, 2.0))
    with pytest.raises(ValueError, match="at least 7 blocks"):
        compare("x", [good] * 6, Random(1))
    with pytest.raises(ValueError, match="positive"):
        compare("x", [good] * 7 + [Block((0.0, 1.0), (1.0, 1.0))], Random(1))
    with pytest.raises(ValueError, match="at least 7"):
        minimum_detectable_effect([0.1] * 6)
    with pytest.raises(ValueError, match="pilot"):
        blocks_needed([0.1] * 3, 0.05)
