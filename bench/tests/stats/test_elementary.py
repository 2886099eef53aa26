"""The same bits everywhere, and close to the truth."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice_bench.stats.elementary import exp, ln


@given(st.floats(1e-300, 1e300))
def test_ln_is_the_logarithm(x: float) -> None:
    assert abs(ln(x) - math.log(x)) <= 4 * math.ulp(math.log(x))


@given(st.floats(0.5, 2.0))
def test_ln_is_as_good_near_one(x: float) -> None:
    assert abs(ln(x) - math.log(x)) <= 4 * math.ulp(math.log(x))


@given(st.floats(-700, 700))
def test_exp_is_the_exponential(x: float) -> None:
    assert abs(exp(x) - math.exp(x)) <= 4 * math.ulp(math.exp(x))


def test_bits_do_not_depend_on_the_machine() -> None:
    assert [ln(x).hex() for x in (0.3, 3.0, 1e10)] == [
        "-0x1.34378fcbda721p+0",
        "0x1.193ea7aad030bp+0",
        "0x1.7069e2aa2aa5bp+4",
    ]
    assert [exp(x).hex() for x in (-1.0, 0.05, 30.0)] == [
        "0x1.78b56362cef38p-2",
        "0x1.0d201a422a433p+0",
        "0x1.370470aec28ecp+43",
    ]


@pytest.mark.parametrize("x", [0.0, -1.0, math.inf, math.nan])
def test_only_positive_numbers_have_a_logarithm(x: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        ln(x)
