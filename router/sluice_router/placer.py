"""Puts a request on an endpoint: which targets it has, who is chosen, and what it holds there from then on.

Keeps the counts of placements, which make equals take turns. Does not know the queue: who has to let others
go first is told by `claimed`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping

from sluice_router import matching, refusals
from sluice_router.admission_policy import AdmissionPolicy
from sluice_router.matching import Mismatch
from sluice_router.placement import Home, Pick, Placement
from sluice_router.plan import Planner, Step
from sluice_router.prefixes import Prefixes
from sluice_router.replica import Replica
from sluice_router.second_attempt import SecondAttempt
from sluice_router.shelf import Lane
from sluice_router.ticket import Ticket
from sluice_router.types import Endpoint, Reject, RequestFacts, Usage
from sluice_router.work_ledger import Lease

REMEMBERED = 16
"""Placements."""


class Placer:
    """Places tickets on the replicas that it was given."""

    __slots__ = (
        "_placement",
        "_placements",
        "_planner",
        "_recovery_s",
        "_replicas",
        "prefixes",
        "recent",
        "retries",
    )

    def __init__(
        self,
        replicas: Mapping[str, Replica],
        policy: AdmissionPolicy,
        random: Callable[[], float],
        *,
        load_ttl_s: float,
        recovery_s: float,
        prefix_blocks: int,
    ) -> None:
        """`replicas` by endpoint id, in the order of their numbers; the mapping is shared. All else is the
        router's."""
        self._replicas = replicas
        self._planner = Planner(replicas)
        self.prefixes = Prefixes(len(replicas), prefix_blocks)
        """What is known of the endpoints' caches."""
        self._placement = Placement(tuple(replicas.values()), self.prefixes, policy, random, load_ttl_s)
        self._recovery_s = recovery_s
        self._placements = 0
        self.recent: deque[Ticket] = deque(maxlen=REMEMBERED)
        """What was placed last, for people who ask why."""
        self.retries = 0
        """Placements of requests that had been placed before."""

    def steps(self, facts: RequestFacts) -> tuple[Step, ...]:
        """Everything that could serve, best first."""
        return self._planner.steps(facts)

    def step(self, ticket: Ticket) -> Step | None:
        """The first target that is worth waiting for, without the endpoints that failed the ticket."""
        for step in self._planner.steps(ticket.facts):
            left = step.without(ticket.excluded)
            if left.usable:
                return left
        return None

    def place(self, ticket: Ticket, step: Step, claimed: Lane, now: float, *, again: bool = False) -> bool:
        """Place the ticket; False when no endpoint of the step takes it, those in `claimed` left out, or one
        is worth waiting for, which is noted in the ticket. `again`: it is waiting for one since
        `ticket.queued_at`."""
        first_at = ticket.home if again else None
        ticket.home, ticket.new_tokens = None, ticket.cost.prompt_tokens
        if claimed and not ticket.facts.prefix and covers(claimed, step.lane):
            return False
        facts, cost = ticket.facts, ticket.cost
        waited_s = 0.0 if first_at is None else now - ticket.queued_at
        pick = self._placement.choose(
            step.pool, facts, cost, ticket.excluded, now, claimed, first_at, waited_s
        )
        if pick is None:
            return False
        if isinstance(pick, Home):
            ticket.home, ticket.new_tokens = pick.replica.endpoint.id, pick.new_tokens
            return False
        self._put(ticket, step, pick, now)
        return True

    def place_at(self, ticket: Ticket, step: Step, replica: Replica, now: float) -> None:
        """Place a ticket where it has waited for."""
        self._put(ticket, step, self._placement.at(step.pool, replica, ticket.facts, ticket.cost, now), now)

    def waits_for(self, ticket: Ticket, step: Step) -> Step:
        """The part of the step that the ticket is to wait for."""
        return step if ticket.home is None else step.only(self._replicas[ticket.home])

    def _put(self, ticket: Ticket, step: Step, pick: Pick, now: float) -> None:
        replica, target = pick.replica, step.target
        ticket.reason, ticket.hit_tokens, ticket.scores = pick.reason, pick.hit_tokens, pick.scores
        if ticket.facts.prefix:
            self.prefixes.placed(replica.number, ticket.facts.prefix, pick.key, now)
        ticket.model, ticket.choice, ticket.relaxed = target.facts.model, target.choice, target.relaxed
        ticket.lease, ticket.decision = self._occupy(ticket, pick, now), replica.endpoint
        ticket.permit = replica.breaker.admit()
        if ticket.attempts:
            self.retries += 1
        ticket.attempts += 1
        self.recent.append(ticket)

    def choose(self, ticket: Ticket, step: Step, left_out: Lane, now: float) -> Pick | None:
        """The step's best endpoint for the ticket, but for some; `None` when none takes it."""
        pick = self._placement.choose(step.pool, ticket.facts, ticket.cost, left_out, now)
        return None if isinstance(pick, Home) else pick

    def is_of(self, ticket: Ticket, step: Step) -> bool:
        """Whether the ticket was placed by this step's target: the same model, with the same wishes met."""
        target = step.target
        same = target.choice == ticket.choice and target.relaxed is ticket.relaxed
        return same and target.facts.model == ticket.model

    def place_second(self, ticket: Ticket, step: Step, pick: Pick, now: float) -> SecondAttempt:
        """Have the picked endpoint serve a ticket that is placed already, beside that."""
        replica = pick.replica
        lease = self._occupy(ticket, pick, now)
        permit = replica.breaker.admit()
        return SecondAttempt(
            replica.endpoint, lease, permit, step.lane, pick.reason, pick.hit_tokens, pick.scores
        )

    def _occupy(self, ticket: Ticket, pick: Pick, now: float) -> Lease:
        self._placements += 1
        cost = ticket.cost
        lease = Lease(pick.new_tokens, cost.output_tokens, cost.work, now)
        pick.replica.occupy(self._placements, lease, seen=ticket.facts.stream)
        return lease

    def computed(self, ticket: Ticket, replica: Replica) -> None:
        """The endpoint has the ticket's prompt in its cache."""
        facts = ticket.facts
        if facts.prefix and not ticket.computed:
            ticket.computed = True
            tokens = replica.ledger.kv_capacity_tokens()
            blocks = None if tokens is None else tokens // facts.prefix_block_tokens
            self.prefixes.computed(replica.number, facts.prefix, blocks)

    def ended(self, ticket: Ticket, replica: Replica, usage: Usage | None, *, well: bool) -> None:
        """The ticket has left the endpoint."""
        if not ticket.facts.prefix:
            return
        if well:
            self.computed(ticket, replica)
        if usage is not None:
            replica.expected_tokens += ticket.hit_tokens
            replica.cached_tokens += usage.cached_tokens

    def restarted(self, replica: Replica, now: float) -> None:
        """The endpoint can serve again; its cache is empty, or may be."""
        replica.recovered_at = now
        self.prefixes.forget(replica.number)

    def reopened(self, replica: Replica) -> None:
        """Something happened after which the endpoint may have room."""
        self._placement.reopened(replica)

    def unservable(self, ticket: Ticket, now: float) -> Reject:
        """Why no target has a usable endpoint."""
        steps = self._planner.steps(ticket.facts)
        members = [replica for step in steps for replica in step.without(ticket.excluded).members]
        if members:
            return refusals.none_usable(ticket.facts.model, members, now, self._recovery_s)
        found = self.mismatch(ticket.facts)
        if found is not None:
            return refusals.unservable(found.message)
        return refusals.attempts_used_up(ticket.attempts, self._recovery_s)

    def mismatch(self, facts: RequestFacts) -> Mismatch | None:
        """Why no configured endpoint could ever serve the request; `None` when one could."""
        return matching.mismatch(self.endpoints(), facts)

    def endpoints(self) -> Iterable[Endpoint]:
        """As they are known now."""
        return (r.endpoint for r in self._replicas.values())

    def forget(self) -> None:
        """An endpoint's models have changed."""
        self._planner.forget()


def covers(claimed: Lane, lane: Lane) -> bool:
    """Whether all of `lane` is in `claimed`. Mostly they are one object, however long they are."""
    return claimed is lane or lane <= claimed
