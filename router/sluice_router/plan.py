"""From a request's facts to the replicas that may serve it, step by step; remembered, because it is asked on
every request and changes only when an endpoint's models do.

A step is a target with at least one configured candidate. Health, room and failures are not looked at here:
the router goes through the steps with them in mind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sluice_router.candidates import Pool
from sluice_router.matching import candidates
from sluice_router.replica import Replica
from sluice_router.shelf import Lane
from sluice_router.targets import Target, targets
from sluice_router.types import Choice, RequestFacts

REMEMBERED = 1024
"""Model names come from clients, so what is remembered about them needs a bound."""

_Demand = tuple[
    str,
    str | None,
    str,
    str | None,
    str | None,
    frozenset[str] | None,
    frozenset[str] | None,
    frozenset[str],
    bool,
    tuple[Choice, ...],
]


@dataclass(frozen=True, slots=True)
class Step:
    """One target and the replicas that can satisfy it."""

    target: Target
    members: tuple[Replica, ...]
    """In the order of the configuration; at least one."""
    lane: Lane
    """Their ids."""
    pool: Pool
    """They, and those that `without` left out, ranked for placement."""

    def without(self, excluded: frozenset[str]) -> Step:
        """The same without some endpoints. May be left without members."""
        if not excluded or self.lane.isdisjoint(excluded):
            return self
        members = tuple(r for r in self.members if r.endpoint.id not in excluded)
        return Step(self.target, members, self.lane - excluded, self.pool)

    def only(self, replica: Replica) -> Step:
        """The same with one of its endpoints."""
        return Step(self.target, (replica,), frozenset((replica.endpoint.id,)), self.pool)

    @property
    def usable(self) -> bool:
        """Whether it is worth waiting for."""
        for replica in self.members:  # noqa: SIM110  (no generator: this is asked on every request)
            if replica.usable:
                return True
        return False


class Planner:
    """Finds and remembers the steps for each distinct demand."""

    def __init__(self, replicas: Mapping[str, Replica]) -> None:
        """`replicas` by endpoint id; the mapping is shared, not copied."""
        self._replicas = replicas
        self._memo: dict[_Demand, tuple[Step, ...]] = {}
        self._pools: dict[Lane, Pool] = {}
        self._all = Pool(replicas.values())
        """Has the ring that those of all other pools are parts of."""

    def steps(self, facts: RequestFacts) -> tuple[Step, ...]:
        """What may serve the request, best first; empty when nothing is configured for it."""
        demand = (
            facts.kind,
            facts.via,
            facts.model,
            facts.backend,
            facts.quant,
            facts.allowed_backends,
            facts.allowed_quants,
            facts.needs,
            facts.prefer,
            facts.choices,
        )
        steps = self._memo.get(demand)
        if steps is None:
            if len(self._memo) >= REMEMBERED:
                self.forget()
            steps = self._memo[demand] = self._find(facts)
        return steps

    def forget(self) -> None:
        """An endpoint's models have changed."""
        self._memo.clear()
        self._pools.clear()

    def _find(self, facts: RequestFacts) -> tuple[Step, ...]:
        steps = (self._step(target) for target in targets(facts))
        return tuple(step for step in steps if step.members)

    def _step(self, target: Target) -> Step:
        found = candidates((r.endpoint for r in self._replicas.values()), target.facts)
        members = tuple(self._replicas[e.id] for e in found)
        lane = frozenset(e.id for e in found)
        pool = self._pools.get(lane)
        if pool is None:
            whole = self._all
            pool = self._pools[lane] = whole if len(members) == len(whole.members) else Pool(members, whole)
        return Step(target, members, lane, pool)
