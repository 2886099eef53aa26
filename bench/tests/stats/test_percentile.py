"""Nearest rank, of values that count one each; weights are tested with the definitions."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice_bench.stats.percentile import percentile, percentile_of


@given(st.lists(st.integers(0, 50), min_size=1, max_size=40), st.integers(1, 100))
def test_it_is_the_value_at_the_nearest_rank(values: list[int], hundredths: int) -> None:
    rank = max(1, -(-hundredths * len(values) // 100))
    assert percentile_of(values, hundredths / 100) == sorted(values)[rank - 1]


def test_an_exact_rank_is_not_overshot() -> None:
    assert percentile_of(range(1, 101), 0.07) == 7


def test_there_is_none_of_nothing() -> None:
    with pytest.raises(ValueError, match="nothing"):
        percentile_of([], 0.5)
    with pytest.raises(ValueError, match="nothing"):
        percentile([(math.pi, 0)], 0.5)
