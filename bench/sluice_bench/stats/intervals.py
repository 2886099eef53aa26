"""Confidence intervals over the requests of one run.

Percentiles get theirs from order statistics: how many of n independent observations fall below the true
percentile is binomial whatever the distribution, so two ranks enclose it, and both bounds are values that
occurred. Shares (goodput, failures) get the exact one of Clopper and Pearson. Everything else, and all that
is counted per token while requests are what is independent (TBT), gets a bootstrap over whole requests.

All three take requests to be independent of each other. In an overloaded server neighbours share a queue; the
bootstrap can then draw blocks of neighbours, the other two are too narrow. A run that is repeated says more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from random import Random
from typing import TypeVar

from sluice_bench.stats.binomial import at_most, cumulative
from sluice_bench.stats.estimate import Estimate
from sluice_bench.stats.percentile import percentile_of
from sluice_bench.stats.tails import minimum_count

CONFIDENCE = 0.95
_HALVINGS = 60

Unit = TypeVar("Unit")


def percentile_interval(values: Sequence[float], share: float, confidence: float = CONFIDENCE) -> Estimate:
    """The `share` percentile; without bounds when there are fewer values than `tails.minimum_count` asks for.

    Raises `ValueError` without values.
    """
    value, n = percentile_of(values, share), len(values)
    ranks = percentile_ranks(n, share, confidence) if n >= minimum_count(share) else None
    if ranks is None:
        return Estimate(value=value, low=None, high=None, n=n, confidence=confidence)
    ordered = sorted(values)
    return Estimate(
        value=value, low=ordered[ranks[0] - 1], high=ordered[ranks[1] - 1], n=n, confidence=confidence
    )


def percentile_ranks(n: int, share: float, confidence: float = CONFIDENCE) -> tuple[int, int] | None:
    """Ranks, from 1, of the two observations that enclose the percentile; `None` when `n` are too few.

    The chance of missing it is at most `(1 - confidence) / 2` on either side.
    """
    tail = (1 - confidence) / 2
    low, high = 0, n + 1
    for below, chance in cumulative(n, share):
        if chance <= tail:
            low = below + 1
        if chance >= 1 - tail:
            high = below + 1
            break
    return (low, high) if low >= 1 and high <= n else None


def share_interval(hits: int, n: int, confidence: float = CONFIDENCE) -> Estimate:
    """`hits` of `n` as a share. Raises `ValueError` unless `0 <= hits <= n` and `n > 0`."""
    if not 0 <= hits <= n or n == 0:
        raise ValueError(f"{hits} of {n} is no share")
    tail = (1 - confidence) / 2
    low = _boundary(lambda p: 1 - at_most(hits - 1, n, p) <= tail) if hits else 0.0
    high = _boundary(lambda p: at_most(hits, n, p) > tail) if hits < n else 1.0
    return Estimate(value=hits / n, low=low, high=high, n=n, confidence=confidence)


def _boundary(holds: Callable[[float], bool]) -> float:
    """Where in [0, 1] a condition that holds at first ceases to."""
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def bootstrap_interval(
    units: Sequence[Unit],
    statistic: Callable[[Sequence[Unit]], float],
    source: Random,
    *,
    block: int = 1,
    resamples: int = 1000,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """`statistic` of all units, between percentiles of what it is of units drawn with replacement.

    A unit is whatever is independent of the others: mostly a request, with all its tokens. With `block` over
    1, that many neighbours are drawn together (the last is followed by the first), for units that are not
    quite. Bounds are `None` for a single unit. Raises `ValueError` without units or with a `block` below 1.
    """
    n = len(units)
    if not n or block < 1:
        raise ValueError("a bootstrap needs units, and blocks of one or more")
    value = statistic(units)
    if n == 1:
        return Estimate(value=value, low=None, high=None, n=1, confidence=confidence)
    draws = [statistic(_resample(units, block, source)) for _ in range(resamples)]
    tail = (1 - confidence) / 2
    return Estimate(
        value=value,
        low=percentile_of(draws, tail),
        high=percentile_of(draws, 1 - tail),
        n=n,
        confidence=confidence,
    )


def mean_interval(values: Sequence[float], source: Random, confidence: float = CONFIDENCE) -> Estimate:
    """The mean, by bootstrap. Raises `ValueError` without values."""
    return bootstrap_interval(values, mean, source, confidence=confidence)


def mean(values: Sequence[float]) -> float:
    """Summed exactly before it is rounded once. Raises `ZeroDivisionError` without values."""
    return math.fsum(values) / len(values)


def _resample(units: Sequence[Unit], block: int, source: Random) -> list[Unit]:
    n, draw = len(units), source.random
    if block == 1:
        return [units[int(draw() * n)] for _ in range(n)]
    starts = [int(draw() * n) for _ in range(-(-n // block))]
    return [units[(start + step) % n] for start in starts for step in range(block)][:n]
