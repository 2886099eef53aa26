"""How many observations a claim about a tail needs.

The rule of MLPerf LoadGen's early stopping: a percentile is certified when, were it any larger, at most one
observation beyond it would be a coincidence of 1 %. So

    n = min { n : P(Bin(n, 1 - share) <= 1) <= 1 - confidence }

which is 11 for p50, 64 for p90, 130 for p95, 662 for p99 and 6,636 for p99.9. It takes observations to be
independent; a queue makes them less than that, and the truth then needs more.
"""

from __future__ import annotations

from collections.abc import Sequence

from sluice_bench.stats.binomial import at_most, cumulative

CONFIDENCE = 0.99


def minimum_count(share: float, beyond: int = 1, confidence: float = CONFIDENCE) -> int:
    """Observations needed so that `beyond` of them may exceed the `share` percentile and still certify it.

    Raises `ValueError` unless `0 < share < 1`, `0 < confidence < 1` and `beyond >= 0`.
    """
    _check(share, confidence)
    if beyond < 0:
        raise ValueError(f"no fewer than 0 observations can exceed a percentile, not {beyond}")

    def enough(n: int) -> bool:
        return at_most(beyond, n, 1 - share) <= 1 - confidence

    high = beyond + 1
    while not enough(high):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def certified_bound(values: Sequence[float], share: float, confidence: float = CONFIDENCE) -> float | None:
    """A value that the true `share` percentile does not exceed, with `confidence`; `None` of too few values.

    As many of the largest observations are set aside as chance allows, less one: LoadGen, whose estimate this
    is, counts the bound itself among them. Raises as `minimum_count`.
    """
    _check(share, confidence)
    n = len(values)
    too_many = next(k for k, chance in cumulative(n, 1 - share) if chance > 1 - confidence)
    return sorted(values)[n - too_many + 1] if too_many > 1 else None


def _check(share: float, confidence: float) -> None:
    if not 0 < share < 1 or not 0 < confidence < 1:
        raise ValueError(f"percentile and confidence lie between 0 and 1, not at {share} and {confidence}")
