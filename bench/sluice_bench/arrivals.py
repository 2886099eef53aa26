"""When requests are due in an open loop: nanosecond offsets, computed whole before the run starts.

Gaps are never rescaled to make a run end at a round time: a Poisson process stretched to fit is no longer
one. The same seed gives the same schedule on any machine.
"""

from __future__ import annotations

import math
import random

NS_PER_S = 1_000_000_000


def constant(rate: float, count: int) -> tuple[int, ...]:
    """`count` offsets, `rate` per second, evenly spaced. Raises `ValueError` unless `rate` is positive."""
    _check(rate, count)
    return tuple(round(index * NS_PER_S / rate) for index in range(count))


def poisson(rate: float, count: int, seed: int) -> tuple[int, ...]:
    """`count` offsets of a Poisson process of `rate` per second, first gap included. Raises `ValueError`."""
    _check(rate, count)
    source = random.Random(seed)
    due_s, offsets = 0.0, []
    for _ in range(count):
        due_s += -math.log(1.0 - source.random()) / rate
        offsets.append(round(due_s * NS_PER_S))
    return tuple(offsets)


def _check(rate: float, count: int) -> None:
    if not (rate > 0 and math.isfinite(rate)):
        raise ValueError(f"the request rate must be a positive number, not {rate}")
    if count < 0:
        raise ValueError(f"the number of requests must not be negative, not {count}")
