"""What the ends of attempts do to the endpoints' breakers, and when the next breaker lets a probe pass.

Client faults and clients that leave say nothing of an endpoint (`failure.counts`), and neither does an
attempt that was given up because another one answered. Whenever an endpoint has become usable or unusable,
everybody who waits is looked at again.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf

from sluice_router import failure as failures
from sluice_router.dispatcher import Dispatcher
from sluice_router.replica import Replica
from sluice_router.types import FailureClass


class Suspensions:
    """The breakers of one router's endpoints, and their clock."""

    __slots__ = ("_avoid_s", "_dispatcher", "_replicas", "next_half_open")

    def __init__(self, replicas: Mapping[str, Replica], dispatcher: Dispatcher, avoid_s: float) -> None:
        """`replicas` by endpoint id; the mapping is shared. `avoid_s`: see `Failover`."""
        self._replicas = replicas
        self._dispatcher = dispatcher
        self._avoid_s = avoid_s
        self.next_half_open = inf
        """When the next breaker lets a probe pass."""

    def record(self, replica: Replica, permit: int, failure: FailureClass | None, now: float) -> None:
        """Tell the endpoint's breaker how an attempt ended."""
        breaker = replica.breaker
        if failure is not None and failures.is_the_endpoints(failure):
            replica.avoid_until = now + self._avoid_s
        before = breaker.state
        if failure is None:
            breaker.succeed(permit)
            if breaker.state is not before:
                replica.recovered_at = now
        elif not failures.counts(failure):
            breaker.dismiss(permit)
        else:
            breaker.fail(permit, now)
            if breaker.state is not before:
                self.changed(now)

    def answered(self, replica: Replica, permit: int, now: float) -> int:
        """An attempt has got content: enough of a probe. Returns the permit to go on with."""
        suspended = replica.breaker.state
        permit = replica.breaker.answered(permit)
        if replica.breaker.state is not suspended:
            replica.recovered_at = now
        return permit

    def pass_time(self, now: float) -> None:
        """Half-open the breakers whose time has come."""
        if now >= self.next_half_open:
            self.changed(now)

    def changed(self, now: float) -> None:
        """Have breakers let probes pass whose time has come, and everybody who waits be looked at again."""
        for replica in self._replicas.values():
            replica.breaker.half_open(now)
        times = (r.breaker.half_open_at for r in self._replicas.values())
        self.next_half_open = min((t for t in times if t is not None), default=inf)
        self._dispatcher.reconsider(now)
