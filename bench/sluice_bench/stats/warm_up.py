"""Where the steady part of a series begins: MSER-5.

The beginning of a run (cold caches, a batch that is still filling, a queue that is still growing) is biased,
and all of it that is kept biases the mean. MSER (White 1997) leaves out as many of the first observations as
make the standard error of the mean of the rest smallest: more costs observations, fewer keeps bias. Means of
five at a time take the noise out of single ones.

It knows nothing of slow change that lasts: a series that has not settled by its middle is reported as such,
and so is one too short to tell.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

_BATCH = 5
MINIMUM = 10 * _BATCH


class WarmUp(msgspec.Struct, frozen=True):
    """Leave out the first `length` of `n`; unless `settled`, the rest is no steady state either."""

    length: int
    n: int
    settled: bool


def warm_up(values: Sequence[float]) -> WarmUp:
    """Of values in the order in which their requests were due."""
    n = len(values)
    if n < MINIMUM:
        return WarmUp(0, n, settled=False)
    batches = [sum(values[i : i + _BATCH]) / _BATCH for i in range(0, n - _BATCH + 1, _BATCH)]
    errors = _squared_errors(batches)
    half = len(batches) // 2
    best = min(range(half + 1), key=errors.__getitem__)
    return WarmUp(best * _BATCH, n, settled=best < half)


def _squared_errors(batches: Sequence[float]) -> list[float]:
    """By how many of the first are left out: the squared standard error of the mean of the rest."""
    mean = deviations = 0.0
    errors = []
    for count, value in enumerate(reversed(batches), start=1):
        before = value - mean
        mean += before / count
        deviations += before * (value - mean)
        errors.append(deviations / count**2)
    return errors[::-1]
