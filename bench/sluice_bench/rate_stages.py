"""Request rates that change: stages, and the expected number of requests as a clock.

Along a stage the rate goes from one value to another, linearly or by equal factors in equal times; its
integral is the expected number of requests. A Poisson process of changing rate is one of rate 1 on that
clock.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from operator import itemgetter
from typing import Literal

import msgspec

Growth = Literal["linear", "exponential"]


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """`seconds` during which the rate, per second, goes from one value to another."""

    from_rate: float
    to_rate: float
    seconds: float
    growth: Growth = "linear"

    def check(self) -> None:
        """Raises `ValueError` unless rates and time make sense."""
        numbers = (self.from_rate, self.to_rate, self.seconds)
        if not all(number >= 0 and math.isfinite(number) for number in numbers) or self.seconds == 0:
            raise ValueError("a stage needs rates that are not negative and a time above 0 s")
        if self.growth == "exponential" and 0 in numbers:
            raise ValueError("an exponential stage needs a rate above 0 at both ends")

    @property
    def total(self) -> float:
        """Requests expected in the whole stage."""
        return self.expected(self.seconds)

    def expected(self, elapsed_s: float) -> float:
        """Requests expected in the first `elapsed_s` of it."""
        if self._exponent == 0:
            slope = (self.to_rate - self.from_rate) / self.seconds
            return elapsed_s * (self.from_rate + slope * elapsed_s / 2)
        return self.from_rate * math.expm1(self._exponent * elapsed_s) / self._exponent

    def elapsed(self, expected: float) -> float:
        """Seconds until so many are expected: the inverse of `expected` for values in `(0, total]`."""
        if self._exponent == 0:
            slope = (self.to_rate - self.from_rate) / self.seconds
            root = math.sqrt(max(0.0, self.from_rate**2 + 2 * slope * expected))
            return 2 * expected / (self.from_rate + root)
        return math.log1p(self._exponent * expected / self.from_rate) / self._exponent

    @property
    def _exponent(self) -> float:
        """Of the rate's growth, per second; 0 for a linear stage."""
        if self.growth == "linear":
            return 0.0
        return math.log(self.to_rate / self.from_rate) / self.seconds


class StageClock:
    """Stages one after another; after the last one its final rate stays."""

    def __init__(self, plan: Sequence[Stage]) -> None:
        """Raises `ValueError`."""
        if not plan:
            raise ValueError("a schedule of stages needs at least one")
        for stage in plan:
            stage.check()
        self._last_rate = plan[-1].to_rate
        self._spans: list[tuple[int, int, Stage]] = []  # start, end, stage
        start_ns = 0
        for stage in plan:
            end_ns = start_ns + round(stage.seconds * 1e9)
            self._spans.append((start_ns, end_ns, stage))
            start_ns = end_ns

    def after(self, now_ns: int, expected: float) -> int:
        """When `expected` more requests are expected than at `now_ns`. Raises `ValueError` when never."""
        current = bisect_right(self._spans, now_ns, key=itemgetter(1))
        for place in range(current, len(self._spans)):
            start_ns, end_ns, stage = self._spans[place]
            past = stage.expected((now_ns - start_ns) / 1e9)
            if past + expected < stage.total:
                return max(now_ns, start_ns + round(stage.elapsed(past + expected) * 1e9))
            expected -= stage.total - past
            now_ns = end_ns
        if self._last_rate == 0:
            raise ValueError("the last stage ends at rate 0 before all requests are due; ask for fewer")
        return now_ns + round(expected / self._last_rate * 1e9)
