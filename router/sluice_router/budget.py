"""One budget for all retries: a share of the recent requests, plus a few for quiet times.

When every engine fails, retries multiply the load just when there is least room for it. The budget bounds
them: with `n` requests admitted since the start and `t` seconds passed, no more than

    ratio * n + floor * (1 + t / window)

retries are granted, whatever the order of events. Both counts decay exponentially with the time constant
`window_s`, so nothing is kept but two numbers. Source of the idea: the retry budgets of Finagle and Linkerd.
"""

from __future__ import annotations

from math import exp


class RetryBudget:
    """Decaying counts of requests and of retries."""

    __slots__ = ("_at", "_floor", "_ratio", "_requests", "_retries", "_window_s")

    def __init__(self, ratio: float, floor: float, window_s: float) -> None:
        self._ratio = ratio
        self._floor = floor
        self._window_s = window_s
        self._requests = 0.0
        self._retries = 0.0
        self._at = 0.0

    def note_request(self, now: float) -> None:
        """A request came in."""
        self._decay(now)
        self._requests += 1.0

    def withdraw(self, now: float) -> bool:
        """Take one retry; False, and nothing taken, when there is none left."""
        self._decay(now)
        if self._retries + 1.0 > self._floor + self._ratio * self._requests:
            return False
        self._retries += 1.0
        return True

    def left(self, now: float) -> float:
        """Retries that would be granted one after the other. Changes nothing, not in the last bit either."""
        kept = exp(-max(0.0, now - self._at) / self._window_s)
        return max(0.0, self._floor + kept * (self._ratio * self._requests - self._retries))

    def _decay(self, now: float) -> None:
        elapsed_s = now - self._at
        if elapsed_s > 0.0:
            kept = exp(-elapsed_s / self._window_s)
            self._requests *= kept
            self._retries *= kept
            self._at = now
