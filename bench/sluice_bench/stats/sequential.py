"""Intervals that may be looked at after every request, and a run stopped because of what they show.

An ordinary interval holds at one count that was fixed beforehand; who looks again and again and stops when it
suits sees it fail far more often. A confidence sequence holds at all counts at once, with the same
probability, at the price of being about half as wide again. The first two below come from a martingale that
exceeds 1 / alpha anywhere with a probability of alpha at most (Ville), so neither assumes a distribution:

- `QuantileSequence`: how many of t observations lie below the true percentile is binomial, and the mixture of
  all binomials over a beta prior, by the true one, is such a martingale (Howard and Ramdas 2022).
- `MeanSequence`: of values within known bounds, by the empirical Bernstein martingale with predictable bets
  (Waudby-Smith and Ramdas 2023). Shares and accuracies have bounds; latencies have none worth using.
- `LatencyMeanSequence`: of any values, by the Brownian motion that their sum comes to resemble (Waudby-Smith,
  Arbour, Sinha, Kennedy and Ramdas 2024). It holds in the limit only, so it claims nothing of fewer than
  `LatencyMeanSequence.LEAST`, and a median asks for less faith.

All take observations to be independent, as the requests of a server that keeps up nearly are. Where they
queue behind each other, the truth is less certain than these say.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Callable

from sluice_bench.stats.elementary import ln
from sluice_bench.stats.estimate import Estimate
from sluice_bench.stats.percentile import percentile_of_sorted
from sluice_bench.stats.tails import minimum_count

CONFIDENCE = 0.95


class QuantileSequence:
    """Of one percentile. The interval is tightest near `planned` observations, and holds at any number."""

    def __init__(self, share: float, confidence: float = CONFIDENCE, planned: int = 1000) -> None:
        """Raises `ValueError` unless `0 < share < 1` and `planned > 0`."""
        if not 0 < share < 1 or planned <= 0:
            raise ValueError(f"no sequence for the percentile {share} planned for {planned} observations")
        self._share, self._confidence = share, confidence
        self._least = minimum_count(share)
        self._limit = -ln(1 - confidence)
        weight = planned / 8  # as many observations as the prior is worth: an eighth is best at 95 %
        self._below = _LogRising(weight * share)
        self._above = _LogRising(weight * (1 - share))
        self._all = _LogRising(weight)
        self._ordered: list[float] = []

    def add(self, value: float) -> None:
        """Take one more observation."""
        insort(self._ordered, value)

    def estimate(self) -> Estimate:
        """As of now; bounds are `None` as long as nothing can be claimed. Raises `ValueError` of nothing."""
        n = len(self._ordered)
        value = percentile_of_sorted(self._ordered, self._share)
        low, high = self._enclosing_ranks(n) if n >= self._least else (0, n + 1)
        return Estimate(
            value=value,
            low=self._ordered[low - 1] if low >= 1 else None,
            high=self._ordered[high - 1] if high <= n else None,
            n=n,
            confidence=self._confidence,
        )

    def _enclosing_ranks(self, n: int) -> tuple[int, int]:
        """The first count below the percentile that is believable, and one more than the last."""
        likely = round(n * self._share)
        lowest = _first_true(0, likely, lambda below: self._log_evidence(below, n) < self._limit)
        beyond = _first_true(likely, n + 1, lambda below: self._log_evidence(below, n) >= self._limit)
        return lowest, beyond

    def _log_evidence(self, below: int, n: int) -> float:
        """Of the martingale when `below` of `n` observations lie below the true percentile."""
        mixture = self._below.upto(below) + self._above.upto(n - below) - self._all.upto(n)
        return mixture - below * ln(self._share) - (n - below) * ln(1 - self._share)


class _LogRising:
    """ln of `start (start + 1) … (start + k - 1)`, remembered."""

    def __init__(self, start: float) -> None:
        self._start = start
        self._sums = [0.0]

    def upto(self, k: int) -> float:
        while len(self._sums) <= k:
            self._sums.append(self._sums[-1] + ln(self._start + len(self._sums) - 1))
        return self._sums[k]


def _first_true(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """The first in `low … high` where a condition that then stays true holds; `high` if nowhere before."""
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


class MeanSequence:
    """Of the mean of values between 0 and `bound`."""

    _BOLDEST = 0.5
    """No bet stakes more than this share of what it could lose."""

    def __init__(self, bound: float = 1.0, confidence: float = CONFIDENCE) -> None:
        """Raises `ValueError` unless `bound` is positive."""
        if not 0 < bound < math.inf:
            raise ValueError(f"the bound of the values must be positive, not {bound}")
        self._bound, self._confidence = bound, confidence
        self._log_odds = ln(2 / (1 - confidence))
        self._n = 0
        self._sum = self._deviations = 0.0
        self._bets = self._won = self._penalty = 0.0

    def add(self, value: float) -> None:
        """Take one more observation. Raises `ValueError` outside the bounds."""
        if not 0 <= value <= self._bound:
            raise ValueError(f"a value of {value} is not between 0 and {self._bound}")
        x = value / self._bound
        guess, bet = self._mean(), self._bet()
        self._bets += bet
        self._won += bet * x
        self._penalty += (x - guess) ** 2 * (-ln(1 - bet) - bet)
        self._n += 1
        self._sum += x
        self._deviations += (x - self._mean()) ** 2

    def estimate(self) -> Estimate:
        """As of now. Raises `ValueError` of nothing."""
        if not self._n:
            raise ValueError("a mean of nothing")
        centre, reach = self._won / self._bets, (self._log_odds + self._penalty) / self._bets
        return Estimate(
            value=self._sum / self._n * self._bound,
            low=max(0.0, centre - reach) * self._bound,
            high=min(1.0, centre + reach) * self._bound,
            n=self._n,
            confidence=self._confidence,
        )

    def _mean(self) -> float:
        return (0.5 + self._sum) / (self._n + 1)

    def _bet(self) -> float:
        """From what was seen before, or the martingale would be none."""
        variance = (0.25 + self._deviations) / (self._n + 1)
        best = math.sqrt(2 * self._log_odds / (variance * (self._n + 1) * ln(self._n + 2)))
        return min(self._BOLDEST, best)


class LatencyMeanSequence:
    """Of the mean of values without a known bound. The interval is tightest near `planned` observations.

    Simulated at 95 %, of lognormal latencies: with logs that deviate by 0.6 it misses the truth at some look
    in 3 of 100 runs, with 1.0, where one in a hundred is ten times the median, in 8.
    """

    LEAST = 100
    """The mean of fewer is not nearly normal when one in a hundred is ten times the others."""

    def __init__(self, confidence: float = CONFIDENCE, planned: int = 1000) -> None:
        """Raises `ValueError` unless `planned` is positive."""
        if planned <= 0:
            raise ValueError(f"no sequence is planned for {planned} observations")
        self._confidence = confidence
        odds = -2 * ln(1 - confidence)
        self._pace = (odds + ln(1 + odds)) / planned
        self._n = 0
        self._mean = self._deviations = 0.0

    def add(self, value: float) -> None:
        """Take one more observation."""
        before = value - self._mean
        self._n += 1
        self._mean += before / self._n
        self._deviations += before * (value - self._mean)

    def estimate(self) -> Estimate:
        """As of now. Raises `ValueError` of nothing."""
        n = self._n
        if not n:
            raise ValueError("a mean of nothing")
        reach = self._reach() if n >= self.LEAST else None
        return Estimate(
            value=self._mean,
            low=None if reach is None else self._mean - reach,
            high=None if reach is None else self._mean + reach,
            n=n,
            confidence=self._confidence,
        )

    def _reach(self) -> float:
        variance = self._deviations / (self._n - 1)
        grown = self._n * self._pace + 1
        evidence = ln(math.sqrt(grown) / (1 - self._confidence))
        return math.sqrt(2 * variance * grown * evidence / (self._n * self._n * self._pace))
