"""The binomial distribution, by ratios of neighbouring terms outwards from the largest.

No factorial, no power: nothing overflows for a million trials, and only `* /` are used, so every machine gets
the same ranks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import accumulate

_NEGLIGIBLE = 1e-22
"""Terms below this share of the largest are left out."""


def terms(n: int, p: float) -> tuple[int, list[float]]:
    """`(first, [P(X = first), P(X = first + 1), …])` of the terms that matter.

    Raises `ValueError` unless `n >= 0` and `0 <= p <= 1`.
    """
    if n < 0 or not 0 <= p <= 1:
        raise ValueError(f"no binomial distribution has {n} trials of chance {p}")
    if p in (0, 1):
        return round(n * p), [1.0]
    mode = min(n, math.floor((n + 1) * p))
    down, odds = [1.0], p / (1 - p)
    for k in range(mode, 0, -1):
        down.append(down[-1] * k / ((n - k + 1) * odds))
        if down[-1] < _NEGLIGIBLE:
            break
    up = [1.0]
    for k in range(mode, n):
        up.append(up[-1] * (n - k) * odds / (k + 1))
        if up[-1] < _NEGLIGIBLE:
            break
    weights = [*reversed(down), *up[1:]]
    total = math.fsum(weights)
    return mode - len(down) + 1, [weight / total for weight in weights]


def cumulative(n: int, p: float) -> Iterator[tuple[int, float]]:
    """`(k, P(X <= k))`, of the k that matter in turn. Raises as `terms`."""
    first, chances = terms(n, p)
    return enumerate(accumulate(chances), start=first)


def at_most(k: int, n: int, p: float) -> float:
    """P(X <= k) of `n` trials of chance `p`. Raises as `terms`."""
    first, chances = terms(n, p)
    return min(1.0, math.fsum(chances[: max(0, k - first + 1)]))
