"""What the router knows of one endpoint: the ledger of its own requests, and the engine's last reading.

Invariant: `0 <= in_flight <= endpoint.max_in_flight`. Does not know which requests are in flight, nor why an
endpoint is unhealthy: both are the caller's.
"""

from __future__ import annotations

from sluice_router.breaker import Breaker, BreakerState
from sluice_router.snapshot import ReplicaSnapshot
from sluice_router.types import Endpoint, EngineLoad, Usage

SERVICE_TIME_WEIGHT = 0.1
"""Weight of the newest request in the moving average of service times."""


class Replica:
    """Mutable state of one endpoint. Only the router changes it."""

    __slots__ = (
        "_load",
        "_load_at",
        "avoid_until",
        "breaker",
        "draining",
        "endpoint",
        "healthy",
        "in_flight",
        "last_placed",
        "mean_service_s",
        "settled",
        "used",
    )

    def __init__(self, endpoint: Endpoint, breaker: Breaker, order: int = 0) -> None:
        """Healthy and empty. `order` decides whose turn is first among replicas that never had one."""
        self.endpoint = endpoint
        self.breaker = breaker
        self.healthy = True
        self.draining = False
        self.avoid_until = 0.0
        """Until then it is chosen last: it has just failed."""
        self.in_flight = 0
        self.last_placed = order
        self.mean_service_s: float | None = None
        self.settled = 0
        self.used = [0, 0, 0]
        """Sums of prompt, completion and cached tokens."""
        self._load: EngineLoad | None = None
        self._load_at = 0.0

    @property
    def usable(self) -> bool:
        """Whether it is worth waiting for: well, wanted, and not suspended."""
        return self.healthy and not self.draining and self.breaker.state is not BreakerState.OPEN

    @property
    def available(self) -> bool:
        """Whether it may be given one more request now."""
        return (
            self.healthy
            and not self.draining
            and self.in_flight < self.endpoint.max_in_flight
            and self.breaker.permits
        )

    @property
    def drain_per_s(self) -> float:
        """Requests a second that leave it at its present occupancy (Little's law); 0 while unknown."""
        return self.in_flight / self.mean_service_s if self.mean_service_s else 0.0

    def record_load(self, load: EngineLoad, now: float) -> None:
        """Keep the engine's reading taken at `now`."""
        self._load, self._load_at = load, now

    def reported_waiting(self, now: float, ttl_s: float) -> int:
        """Requests the engine said are waiting inside it; 0 when unknown or older than `ttl_s`."""
        if self._load is None or self._load.waiting is None or now - self._load_at > ttl_s:
            return 0
        return self._load.waiting

    def occupy(self, order: int) -> None:
        """Take one slot. `order` grows with every placement and makes equals take turns."""
        self.in_flight += 1
        self.last_placed = order

    def vacate(self) -> None:
        """Give back one slot."""
        self.in_flight -= 1
        self.settled += 1

    def record_service(self, service_s: float, usage: Usage | None) -> None:
        """Learn from one request that ran for `service_s`, with `usage` if it became known."""
        if self.mean_service_s is None:
            self.mean_service_s = service_s
        else:
            self.mean_service_s += SERVICE_TIME_WEIGHT * (service_s - self.mean_service_s)
        if usage is not None:
            used = self.used
            used[0] += usage.prompt_tokens
            used[1] += usage.completion_tokens
            used[2] += usage.cached_tokens

    def snapshot(self) -> ReplicaSnapshot:
        """A frozen copy."""
        prompt, completion, cached = self.used
        return ReplicaSnapshot(
            endpoint=self.endpoint,
            healthy=self.healthy,
            draining=self.draining,
            breaker=self.breaker.state,
            breaker_forced=self.breaker.forced,
            failures=self.breaker.failures,
            in_flight=self.in_flight,
            load=self._load,
            load_at=None if self._load is None else self._load_at,
            mean_service_s=self.mean_service_s,
            settled=self.settled,
            usage=Usage(prompt_tokens=prompt, completion_tokens=completion, cached_tokens=cached),
        )
