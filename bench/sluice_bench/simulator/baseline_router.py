"""A balancer that only places: the frame around every baseline.

It has no queue and no admission, as the routers that the baselines are taken from have none by default: each
request goes to an engine at once, and waits there. A request is refused only when no engine is healthy. After
a failure before the first token it goes to another replica, up to three times.

Its view of the engines is what the source of each baseline would have: the last scrape, and its own requests
in flight.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sluice_bench.simulator.balancer import Notify
from sluice_bench.simulator.traffic import Facts
from sluice_router.types import (
    Endpoint,
    EngineLoad,
    FailureClass,
    Outcome,
    Reject,
    RequestFacts,
    Usage,
)

MOST_ATTEMPTS = 3
_RETRIED = frozenset({FailureClass.UNREACHABLE, FailureClass.BROKEN, FailureClass.OVERLOADED})

Floats = NDArray[np.float64]


class View:
    """What is known of each replica, as arrays `[replicas]`."""

    def __init__(self, replicas: int) -> None:
        self.replicas = replicas
        self.healthy: list[int] = list(range(replicas))
        self.unhealthy = np.zeros(replicas, dtype=bool)
        self.in_flight: Floats = np.zeros(replicas)
        """Own requests."""
        self.prefill_tokens: Floats = np.zeros(replicas)
        """Of own requests that have no first token yet."""
        self.others: Floats = np.zeros(replicas)
        """Requests at the last scrape that were not ours."""
        self.others_tokens: Floats = np.zeros(replicas)
        self.waiting: Floats = np.zeros(replicas)
        self.kv_used: Floats = np.zeros(replicas)

    @property
    def load(self) -> Floats:
        """Requests on each replica: own ones exactly, others' as they were at the last scrape."""
        return self.in_flight + self.others

    @property
    def queued_tokens(self) -> Floats:
        """Prefill ahead of a newcomer, in the same way."""
        return self.prefill_tokens + self.others_tokens

    def scraped(self, replica: int, load: EngineLoad) -> None:
        """A reading; what it does not tell stays as it was."""
        if load.running is not None and load.waiting is not None:
            self.others[replica] = max(0.0, load.running + load.waiting - self.in_flight[replica])
            self.waiting[replica] = load.waiting
        if load.waiting_uncached_tokens is not None:
            self.others_tokens[replica] = max(
                0.0, load.waiting_uncached_tokens - self.prefill_tokens[replica]
            )
        if load.kv_used_ratio is not None:
            self.kv_used[replica] = load.kv_used_ratio


class Strategy(Protocol):
    """Where a request goes. One object a gateway."""

    def pick(self, view: View, facts: Facts) -> int:
        """A healthy replica; there is at least one."""
        ...

    def placed(self, replica: int, facts: Facts) -> None:
        """It was sent there."""
        ...

    def expected_new(self, replica: int, facts: Facts) -> int:
        """Tokens that the replica will have to prefill for it."""
        ...

    def lost(self, replica: int) -> None:
        """The replica has died."""
        ...


class BaselineStay:
    """See `balancer.Stay`."""

    __slots__ = ("_router", "attempts", "closed", "decision", "excluded", "facts", "new", "waited_s")

    def __init__(self, router: BaselineRouter, facts: Facts) -> None:
        self._router = router
        self.facts = facts
        self.decision: Endpoint | Reject | None = None
        self.waited_s = 0.0
        self.attempts = 0
        self.excluded: set[int] = set()
        self.new = 0
        """Tokens that count as queued prefill; 0 once the first token is there."""
        self.closed = False

    def cancel(self, now: float) -> None:
        """See `balancer.Stay`."""
        self._router.leave(self)

    def settle(self, now: float, usage: Usage | None, failure: FailureClass | None = None) -> None:
        """See `balancer.Stay`."""
        self._router.leave(self)

    def answered(self, now: float) -> None:
        """See `balancer.Stay`."""
        self._router.answered(self)

    def retry(self, now: float, failure: FailureClass, notify: Notify) -> None:
        """See `balancer.Stay`."""
        self._router.retry(self, failure)


class BaselineRouter:
    """One gateway's."""

    def __init__(self, endpoints: Sequence[Endpoint], strategy: Strategy) -> None:
        self._endpoints = endpoints
        self._places = {endpoint.id: place for place, endpoint in enumerate(endpoints)}
        self._strategy = strategy
        self.view = View(len(endpoints))

    def admit(self, facts: RequestFacts, now: float, notify: Notify) -> BaselineStay:
        """See `balancer.Balancer`. Raises `TypeError` for facts of another kind than the simulator's."""
        if not isinstance(facts, Facts):
            raise TypeError("a baseline needs the simulator's own facts")
        stay = BaselineStay(self, facts)
        self._place(stay)
        return stay

    def _place(self, stay: BaselineStay) -> None:
        if not self.view.healthy:
            stay.closed = True
            stay.decision = Reject(outcome=Outcome.NO_ENDPOINT, status=503, message="No engine is healthy.")
            return
        place = self._strategy.pick(self.view, stay.facts)
        if place in stay.excluded:
            others = [other for other in self.view.healthy if other not in stay.excluded]
            place = min(others, key=lambda other: self.view.load[other]) if others else place
        stay.attempts += 1
        stay.new = self._strategy.expected_new(place, stay.facts)
        stay.decision = self._endpoints[place]
        self._strategy.placed(place, stay.facts)
        self.view.in_flight[place] += 1
        self.view.prefill_tokens[place] += stay.new

    def answered(self, stay: BaselineStay) -> None:
        """Its prefill is done."""
        if isinstance(stay.decision, Endpoint) and stay.new:
            self.view.prefill_tokens[self._places[stay.decision.id]] -= stay.new
            stay.new = 0

    def leave(self, stay: BaselineStay) -> None:
        """It is over."""
        if isinstance(stay.decision, Endpoint) and not stay.closed:
            self.answered(stay)
            self.view.in_flight[self._places[stay.decision.id]] -= 1
            stay.closed = True

    def retry(self, stay: BaselineStay, failure: FailureClass) -> None:
        """Send it elsewhere, or give up."""
        assert isinstance(stay.decision, Endpoint)
        stay.excluded.add(self._places[stay.decision.id])
        self.leave(stay)
        if failure in _RETRIED and stay.attempts < MOST_ATTEMPTS:
            stay.closed = False
            self._place(stay)
        else:
            stay.decision = Reject(outcome=Outcome.EXHAUSTED, status=503, message="No attempt succeeded.")

    def expire(self, now: float) -> float | None:
        """Nothing waits here."""
        return None

    def set_health(self, endpoint_id: str, healthy: bool, now: float) -> None:
        """See `balancer.Balancer`."""
        place = self._places[endpoint_id]
        self.view.unhealthy[place] = not healthy
        self.view.healthy = [at for at in range(self.view.replicas) if not self.view.unhealthy[at]]
        if not healthy:
            self._strategy.lost(place)
            self.view.others[place] = self.view.others_tokens[place] = 0.0

    def record_load(self, endpoint_id: str, load: EngineLoad, now: float) -> None:
        """See `balancer.Balancer`."""
        self.view.scraped(self._places[endpoint_id], load)
