"""What is looked at once a second while a simulation runs: how even the load is, and who waits while others
are served.

The service gap is that of the fairness literature (VTC, OSDI'24): over any time in which two tenants both
have something waiting, the difference of the service that each received, in tokens, an output token
counting twice. A prompt is counted when its first token comes, an answer when it ends.
"""

from __future__ import annotations

import statistics
from itertools import combinations
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sluice_bench.simulator.fleet import Fleet


class Observer:
    """Of one fleet."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self.load_cv: list[float] = []
        """Standard deviation over mean of the requests on each replica."""
        self.max_gap_tokens = 0.0
        self._gaps: dict[tuple[str, str], tuple[float, float]] = {}
        """The largest and the smallest lead of the first over any time that ends now."""
        self._before: dict[str, int] = {}
        self._backlogged: frozenset[str] = frozenset()

    def look(self) -> None:
        """Now."""
        loads = [engine.running + len(engine.waiting) for engine in self._fleet.engines if engine.alive]
        if len(loads) > 1 and (mean := statistics.fmean(loads)) > 0:
            self.load_cv.append(statistics.pstdev(loads) / mean)
        self._compare()

    def _compare(self) -> None:
        backlogged: set[str] = set()
        for gateway in self._fleet.gateways:
            backlogged.update(tenant for tenant, waiting in gateway.backlog.items() if waiting)
        both = self._backlogged & backlogged
        self._backlogged = frozenset(backlogged)
        served = self._fleet.tally.served
        gained = {name: total - self._before.get(name, 0) for name, total in served.items()}
        self._before = dict(served)
        gaps: dict[tuple[str, str], tuple[float, float]] = {}
        for one, other in combinations(sorted(both), 2):
            change = gained.get(one, 0) - gained.get(other, 0)
            most, least = self._gaps.get((one, other), (0.0, 0.0))
            most, least = max(0.0, most + change), min(0.0, least + change)
            gaps[(one, other)] = (most, least)
            self.max_gap_tokens = max(self.max_gap_tokens, most, -least)
        self._gaps = gaps
