"""How long requests stay on an endpoint, by the work that they are: what the drain rate is told from.

Heavy requests stay longer, so the mean stay is taken by work and not by request. What all endpoints of a
backend taught is kept as well (`peers`) and stands in for one that has not been used much yet, or not by this
gateway: engines of one backend are alike, as far as anybody knows. Does not know the clock or ledgers.
"""

from __future__ import annotations

from sluice_router.latency_model import MEASURED

WEIGHT = 0.1
"""Of the newest request in the moving averages."""


class ServiceModel:
    """What was learned from requests that have ended. One for an endpoint, and one for a backend."""

    __slots__ = ("_work", "_work_s", "peers", "served")

    def __init__(self, peers: ServiceModel | None = None) -> None:
        """`peers`: that of the backend."""
        self.peers = peers
        self.served = 0
        """Requests that have ended since the start."""
        self._work = 0.0
        self._work_s = 0.0

    def reset(self) -> None:
        """The engine was started anew, and may be another one."""
        self.served, self._work, self._work_s = 0, 0.0, 0.0

    def learn(self, work: int, stay_s: float) -> None:
        """A request of so much work has ended after so many seconds."""
        weight = WEIGHT if self.served else 1.0
        self._work += weight * (work - self._work)
        self._work_s += weight * (work * stay_s - self._work_s)
        self.served += 1
        if self.peers is not None:
            self.peers.learn(work, stay_s)

    @property
    def measured(self) -> bool:
        """Whether enough requests have ended, here or at the peers, to refuse by `drain_work_per_s`."""
        return self._known().served >= MEASURED

    @property
    def typical_work(self) -> float:
        """Of one request; 0 while unknown."""
        return self._known()._work

    def drain_work_per_s(self, held: float) -> float:
        """Work that leaves in a second while so much is held (Little's law); 0 while unknown."""
        known = self._known()
        return held * known._work / known._work_s if known._work_s > 0.0 else 0.0

    def _known(self) -> ServiceModel:
        peers = self.peers
        return self if peers is None or self.served >= MEASURED else peers
