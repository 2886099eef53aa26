"""Figures as text."""

from __future__ import annotations

import pytest

from sluice_bench.formatting import number, spread


@pytest.mark.parametrize(
    ("value", "text"), [(0.126, "0.13"), (9.5, "9.50"), (12.34, "12.3"), (1234.6, "1,235")]
)
def test_a_number_has_three_digits_or_so(value: float, text: str) -> None:
    assert number(value) == text


def test_a_spread_is_the_median_between_its_extremes() -> None:
    assert spread([3.0, 1.0, 200.0]) == "3.00 (1.00–200)"
    assert spread([]) == "–"
