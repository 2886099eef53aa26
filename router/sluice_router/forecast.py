"""When a request that has to wait would get its first token, as far as that was measured.

    ttft >= (work ahead + its own) / drain rate        until one of its endpoints has room for it
            + rtt + its prompt and those queued there  on the one that is fastest now

The drain rate is the work that leaves all its endpoints in a second, at their present occupancy. The first
term counts only when every endpoint that could serve has seen `latency_model.MEASURED` requests end, the
second only when the fastest has seen as many first tokens: an endpoint that is not known yet may be faster.
What is not counted is 0, so a forecast is never longer than what was measured.

The sums over the endpoints are kept for a moment, `KEPT_S` and longer where there are many: else a thousand
endpoints would be looked at for every request that has to wait. Does not know the queue, nor the clock.
"""

from __future__ import annotations

from collections.abc import Sequence

from sluice_router.cost import Cost
from sluice_router.replica import Replica
from sluice_router.shelf import Lane

KEPT_S = 0.05
KEPT_PER_ENDPOINT_S = 0.0002
REMEMBERED = 1024
_TYPICAL_TOKENS = 1000
"""The prompt that the fastest endpoint is told by."""


class Capacity:
    """What the endpoints of one lane can do together."""

    __slots__ = ("at", "drain_work_per_s", "fastest", "measured", "slack")

    def __init__(self, members: Sequence[Replica], now: float) -> None:
        self.at = now
        self.drain_work_per_s = 0.0
        """0 while unknown."""
        self.measured = True
        """The drain rate rests on enough requests."""
        self.fastest: Replica | None = None
        """Shortest time to the first token; `None` when one of them is not measured yet."""
        self.slack = 1.0
        """Share of a budget that a forecast may fill."""
        known = True
        shortest = 0.0
        for replica in members:
            if not replica.usable:
                continue
            self.drain_work_per_s += replica.drain_work_per_s(now)
            self.measured = self.measured and replica.measured
            bare_s = bare_ttft_s(replica, _TYPICAL_TOKENS, now)
            known = known and bare_s is not None
            if bare_s is not None and (self.fastest is None or bare_s < shortest):
                self.fastest, shortest = replica, bare_s
        if not known:
            self.fastest = None
        elif self.fastest is not None:
            self.slack = self.fastest.slack(now)

    def wait_s(self, work: int) -> float | None:
        """Seconds until that much work has left; `None` when unknown. A guess unless `measured`."""
        return work / self.drain_work_per_s if self.drain_work_per_s > 0.0 else None

    def placed_s(self, new_tokens: int, now: float) -> float:
        """Seconds to the first token once it is placed, where as many prompts are queued as now: an endpoint
        that others wait for has about as many then. 0 when unknown."""
        if self.fastest is None:
            return 0.0
        return self.fastest.predicted_ttft_s(new_tokens, now) or 0.0

    def bare_s(self, cost: Cost, now: float) -> float:
        """Seconds to the first token with nothing queued before it; 0 when unknown."""
        if self.fastest is None:
            return 0.0
        return bare_ttft_s(self.fastest, cost.prompt_tokens, now) or 0.0


def bare_ttft_s(replica: Replica, new_tokens: int, now: float) -> float | None:
    """Seconds to the first token there with no prompt queued before it; `None` while that is not measured."""
    return replica.latency.ttft_s(new_tokens, 0, replica.running(now))


class Forecasts:
    """Capacities by lane, for a moment."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: dict[Lane, Capacity] = {}

    def capacity(self, members: Sequence[Replica], lane: Lane, now: float) -> Capacity:
        """Of these endpoints, whose ids are `lane`. May be as old as the module says."""
        kept = self._kept.get(lane)
        for_s = KEPT_S + KEPT_PER_ENDPOINT_S * len(members)
        if kept is not None and kept.drain_work_per_s > 0.0 and now - kept.at < for_s:
            return kept
        if len(self._kept) >= REMEMBERED:
            self._kept.clear()
        made = self._kept[lane] = Capacity(members, now)
        return made

    def forget(self) -> None:
        """An endpoint has come or gone."""
        self._kept.clear()
