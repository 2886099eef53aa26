"""Averages and percentiles as NumPy gives them, for formats whose definitions are NumPy's."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

NS = 1e-9
MS = 1e-6
"""A nanosecond in milliseconds."""


class Stats(msgspec.Struct, frozen=True):
    """Of some values."""

    mean: float
    std: float
    """Of a population: divided by n."""


def stats(values: Sequence[float]) -> Stats:
    """Zeros without values."""
    if not values:
        return Stats(0.0, 0.0)
    mean = math.fsum(values) / len(values)
    return Stats(mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values)))


def interpolated(values: Sequence[float], share: float) -> float:
    """A percentile between the two nearest observations; 0 without values."""
    if not values:
        return 0.0
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def seconds(earlier_ns: int | None, later_ns: int | None) -> float | None:
    """Between two stamps; `None` when one is unknown."""
    return None if earlier_ns is None or later_ns is None else (later_ns - earlier_ns) * NS


def milliseconds(earlier_ns: int | None, later_ns: int | None) -> float | None:
    """Between two stamps; `None` when one is unknown."""
    return None if earlier_ns is None or later_ns is None else (later_ns - earlier_ns) * MS
