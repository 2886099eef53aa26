"""Logarithm and exponential that give the same bits on every machine.

The ones of the C library differ in the last place between processors and versions. These use nothing but the
operations that IEEE 754 rounds one way, so a report can be re-derived elsewhere. They are within four units
in the last place of the true value.
"""

from __future__ import annotations

import math

_LN2_HIGH = 0.693147180369123816490
_LN2_LOW = 1.90821492927058770002e-10
"""ln 2 in two parts; the first has so few digits that its product with an exponent is exact."""
_LN_TERMS = tuple(1 / (2 * k + 1) for k in range(12, -1, -1))
_EXP_TERMS = tuple(1 / math.factorial(k) for k in range(15, -1, -1))


def ln(x: float) -> float:
    """Natural logarithm. Raises `ValueError` unless `x` is positive and finite."""
    if not 0 < x < math.inf:
        raise ValueError(f"a logarithm needs a positive number, not {x}")
    mantissa, exponent = math.frexp(x)
    if mantissa < 0.7071067811865476:
        mantissa, exponent = mantissa * 2, exponent - 1
    z = (mantissa - 1) / (mantissa + 1)
    return exponent * _LN2_HIGH + (exponent * _LN2_LOW + 2 * z * _polynomial(_LN_TERMS, z * z))


def exp(x: float) -> float:
    """e to the `x`. Raises `OverflowError` when that is no finite number."""
    halvings = round(x / (_LN2_HIGH + _LN2_LOW))
    rest = x - halvings * _LN2_HIGH - halvings * _LN2_LOW
    return math.ldexp(_polynomial(_EXP_TERMS, rest), halvings)


def _polynomial(highest_first: tuple[float, ...], x: float) -> float:
    value = 0.0
    for coefficient in highest_first:
        value = value * x + coefficient
    return value
