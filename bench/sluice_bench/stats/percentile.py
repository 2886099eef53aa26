"""Nearest-rank percentiles: each is a value that occurred.

Interpolation would invent values between those observed, and every tool interpolates differently; the mean of
two processes' p99 is the p99 of nothing. So observations are pooled and ranked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

_SLACK = 1e-9
"""0.07 * 100 is a little more than 7, and must not ask for the eighth."""


def percentile(weighted: Sequence[tuple[float, int]], share: float) -> float:
    """The smallest value with at least `share` of the weight at or below it, `0 < share <= 1`.

    Raises `ValueError` when there is no weight.
    """
    total = sum(weight for _, weight in weighted)
    if total <= 0:
        raise ValueError("a percentile of nothing")
    reached = 0
    for value, weight in sorted(weighted):
        reached += weight
        if reached >= share * total - _SLACK:
            return value
    return max(value for value, _ in weighted)


def percentile_of(values: Sequence[float], share: float) -> float:
    """Of values that count one each. Raises `ValueError` when there are none."""
    return percentile_of_sorted(sorted(values), share)


def percentile_of_sorted(ordered: Sequence[float], share: float) -> float:
    """Of values in ascending order. Raises `ValueError` when there are none."""
    if not ordered:
        raise ValueError("a percentile of nothing")
    return ordered[max(1, math.ceil(share * len(ordered) - _SLACK)) - 1]
