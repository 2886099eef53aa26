"""A figure with its uncertainty, and two of them compared."""

from __future__ import annotations

from typing import Literal

import msgspec

Verdict = Literal["faster", "slower", "no difference shown"]


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """`value` with bounds that hold the true one in a share `confidence` of all runs.

    A bound is `None` where nothing can be claimed: too few observations, or no bound on that side yet.
    `value` is what was observed all the same, to be shown as such.
    """

    value: float
    low: float | None
    high: float | None
    n: int
    confidence: float = 0.95

    @property
    def claimed(self) -> bool:
        """Whether both bounds are known."""
        return self.low is not None and self.high is not None

    def within(self, relative: float) -> bool:
        """Whether the interval is at most `relative` of the value to either side, on average."""
        if self.low is None or self.high is None:
            return False
        return self.high - self.low <= 2 * relative * abs(self.value)


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """B against A, where all else was the same.

    `ratio` is b / a, its interval the one of the test behind `p_value`. `mde` is the relative change that
    this many blocks of this noise would have found with a probability of 95 %: without a difference shown,
    all that is known is that there is none much larger.
    """

    metric: str
    a: Estimate
    b: Estimate
    ratio: Estimate
    mde: float
    blocks: int
    p_value: float
    verdict: Verdict
