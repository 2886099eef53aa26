"""Who does what next: journeys dealt in proportion to their weights, evenly mixed and without chance.

Smooth weighted round robin: at each turn every name gains its weight, the one that has most is dealt and
pays the sum of all weights. Every run of `sum of weights` turns deals each name exactly as often as its
weight, so a short run with few users meets every journey. All users of a process share one dealer; dealing
never waits, so greenlets cannot come between.
"""

from __future__ import annotations

from collections.abc import Mapping


class Dealer:
    """Deals names for ever."""

    def __init__(self, weights: Mapping[str, int]) -> None:
        """Raises `ValueError` when there is nothing to deal, or a weight is not positive."""
        if not weights or min(weights.values()) <= 0:
            raise ValueError("a dealer needs names with positive weights")
        self._weights = dict(weights)
        self._total = sum(weights.values())
        self._credit = dict.fromkeys(weights, 0)

    def next(self) -> str:
        """The next name; of equals the first one."""
        for name, weight in self._weights.items():
            self._credit[name] += weight
        dealt = max(self._credit, key=self._credit.__getitem__)
        self._credit[dealt] -= self._total
        return dealt
