"""Nearest rank, of values and of values with weights."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice_bench.stats.percentile import percentile, percentile_of


@given(st.lists(st.integers(0, 50), min_size=1, max_size=40), st.floats(0.01, 1.0))
def test_it_is_the_value_at_the_nearest_rank(values: list[int], share: float) -> None:
    rank = max(1, math.ceil(share * len(values) - 1e-9))
    assert percentile_of(values, share) == sorted(values)[rank - 1]
    assert percentile([(value, 1) for value in values], share) == sorted(values)[rank - 1]


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(1, 5)), min_size=1, max_size=20), st.floats(0.01, 1.0)
)
def test_a_weight_is_worth_as_many_observations(pairs: list[tuple[int, int]], share: float) -> None:
    weighted = [(float(value), weight) for value, weight in pairs]
    repeated = [(float(value), 1) for value, weight in pairs for _ in range(weight)]
    assert percentile(weighted, share) == percentile(repeated, share)


def test_an_exact_rank_is_not_overshot() -> None:
    assert percentile_of(range(1, 101), 0.07) == 7


def test_there_is_none_of_nothing() -> None:
    with pytest.raises(ValueError, match="nothing"):
        percentile_of([], 0.5)
    with pytest.raises(ValueError, match="nothing"):
        percentile([(math.pi, 0)], 0.5)
