"""What is left out at the beginning, on series whose beginning is known."""

from __future__ import annotations

import math
from random import Random

import pytest

from sluice_bench.stats.intervals import mean
from sluice_bench.stats.warm_up import MINIMUM, warm_up


def decaying(source: Random, n: int = 400, excess: float = 100.0, time: float = 20.0) -> list[float]:
    """Around 50, after a beginning that starts `excess` higher."""
    return [50 + excess * math.exp(-i / time) + source.gauss(0, 5) for i in range(n)]


def by_definition(values: list[float]) -> int:
    """MSER-5, written out."""
    batches = [sum(values[i : i + 5]) / 5 for i in range(0, len(values) // 5 * 5, 5)]
    errors = []
    for left_out in range(len(batches) // 2 + 1):
        rest = batches[left_out:]
        centre = sum(rest) / len(rest)
        errors.append(sum((value - centre) ** 2 for value in rest) / len(rest) ** 2)
    return 5 * errors.index(min(errors))


@pytest.mark.parametrize("seed", range(8))
def test_it_is_the_definition(seed: int) -> None:
    values = decaying(Random(seed), n=203)
    assert warm_up(values).length == by_definition(values)


@pytest.mark.parametrize("seed", range(20))
def test_the_beginning_is_left_out_and_the_rest_is_unbiased(seed: int) -> None:
    values = decaying(Random(seed))
    found = warm_up(values)
    assert found.settled
    assert 30 <= found.length <= 150
    assert abs(mean(values[found.length :]) - 50) < 1.5 < abs(mean(values) - 50)


def test_of_a_step_exactly_the_step_is_left_out() -> None:
    assert warm_up([9.0] * 40 + [1.0] * 160).length == 40


def test_of_a_steady_series_little_is_left_out() -> None:
    lengths = []
    for seed in range(40):
        source = Random(seed)
        found = warm_up([source.gauss(50, 5) for _ in range(400)])
        lengths.append(found.length if found.settled else 400)
    assert sum(length > 100 for length in lengths) <= 4


def test_a_series_that_grows_to_its_end_has_not_settled() -> None:
    source = Random(3)
    found = warm_up([float(i) + source.gauss(0, 5) for i in range(400)])
    assert not found.settled


def test_a_short_series_cannot_tell() -> None:
    assert not warm_up([1.0] * (MINIMUM - 1)).settled
    assert warm_up([1.0] * MINIMUM).settled
    assert not warm_up([]).settled
