"""Admission, waiting and placement of requests: facts in, decisions out.

Invariants, true between any two calls:

- no endpoint has more requests in flight than its `max_in_flight`; one whose breaker is half-open has been
  given at most one request since;
- nothing waits that could run: a ticket waits for the first of its targets that has a usable endpoint (well,
  wanted, breaker not open), and only while each of that target's usable endpoints either does not take it
  (`Replica.takes`) or is waited for by somebody whose turn comes before; it is refused as soon as no target
  has one. A prompt may wait for one endpoint, its home, where less of it has to be computed, as long as
  nothing else is expected to answer it a good deal sooner;
- what an endpoint's ledger says is the sum over the requests placed on it (`work_ledger.py`);
- every ticket is closed with exactly one outcome:
  admitted == waiting + in flight + the sum of all outcomes;
- retries stay within the budget (`budget.py`).

Who waits is served by deadline, and tenants fairly (`queue.py`); nobody who needs little overtakes one who
needs much and whose turn it is at an endpoint that both wait for. When the queue is full, a more urgent
arrival takes the place of a less urgent request, and one of a tenant that holds little of it that of one that
holds much (`crowd.py`). What would be answered too late is refused (`shedding.py`), once that can be
told from measurements.

The caller passes the time (seconds, monotonic) and calls `expire` when the time that it returned has come. It
starts nothing by itself and is not to be shared between threads. `notify` callbacks run at the end of the
call that decided, when the state is consistent again, so that they may call back.

The bounds on the queue count all waiting requests together. A retried request was already admitted and may
exceed the one on their number, by as many as fit in flight.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf

import msgspec

from sluice_router import failure as failures
from sluice_router import inspection, matching, priority, refusals
from sluice_router.admission_policy import AdmissionPolicy
from sluice_router.breaker import Breaker, BreakerState
from sluice_router.budget import RetryBudget
from sluice_router.cost import CostModel, work_of
from sluice_router.dispatcher import Dispatcher
from sluice_router.failure import Failover
from sluice_router.hedging import SHARE, Hedges
from sluice_router.inspection import RouterDetails
from sluice_router.matching import Mismatch
from sluice_router.neighbours import Neighbours
from sluice_router.placer import Placer
from sluice_router.prefixes import BLOCKS
from sluice_router.replica import Peers, Replica
from sluice_router.snapshot import RouterSnapshot
from sluice_router.suspensions import Suspensions
from sluice_router.ticket import Notify, Ticket
from sluice_router.types import (
    Endpoint,
    EngineLoad,
    FailureClass,
    HedgeResult,
    Outcome,
    Reject,
    RequestFacts,
    Usage,
)

RECHECK_S = 1.0
"""Longest time between two looks at what waits: readings get old, and patience ends."""

SHARED_RECHECK_S = 0.1
"""The same where others send to the engines as well: their requests end unseen, and their room is shared out
as time passes (`neighbours.py`)."""


class Router:
    """Decides where requests run and which wait. Does no I/O."""

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        *,
        max_queue: int,
        queue_timeout_s: float,
        failover: Failover = Failover(),  # noqa: B008  (it is frozen)
        admission: AdmissionPolicy = AdmissionPolicy(),  # noqa: B008  (the same)
        load_ttl_s: float = 10.0,
        recovery_s: float = 5.0,
        random: Callable[[], float] = lambda: 0.5,
        prefix_blocks: int = BLOCKS,
        hedge_share: float = SHARE,
    ) -> None:
        """Start with all endpoints healthy and empty.

        `max_queue`: requests that may wait at once. `queue_timeout_s`: longest wait of one,
        unless its class says more (`priority.py`). `load_ttl_s`: age
        at which an engine's reading stops counting. `recovery_s`: what `Retry-After` says while no endpoint
        is healthy. `random`: numbers from 0 to 1, for what must not happen all at once and for endpoints that
        are tried by chance. `prefix_blocks`: blocks of prompts that are remembered, over all endpoints.
        `hedge_share`: second attempts, as a share of the requests; 0 for none (`hedging.py`).
        Raises `ValueError` on two endpoints with the same id.
        """
        self._neighbours = Neighbours()
        self._replicas = _replicas(endpoints, failover, admission, load_ttl_s, random, self._neighbours)
        if len(self._replicas) != len(endpoints):
            raise ValueError("endpoint ids must be unique")
        self._classes = priority.classes(queue_timeout_s, admission.deadlines_s)
        self._max_attempts = failover.max_attempts
        self._budget = RetryBudget(failover.retry_ratio, failover.retry_floor, failover.retry_window_s)
        self._recovery_s = recovery_s
        self._costs = CostModel()
        self._placer = Placer(
            self._replicas,
            admission,
            random,
            load_ttl_s=load_ttl_s,
            recovery_s=recovery_s,
            prefix_blocks=prefix_blocks,
        )
        self._dispatcher = Dispatcher(
            self._replicas,
            self._placer,
            admission,
            random,
            max_queue=max_queue,
            queue_timeout_s=queue_timeout_s,
            recovery_s=recovery_s,
        )
        self._room = self._dispatcher.room
        self._suspensions = Suspensions(self._replicas, self._dispatcher, failover.avoid_s)
        self.hedges = Hedges(self._replicas, self._placer, self._dispatcher, self._suspensions, hedge_share)
        """Second attempts; see there."""
        self._informed = False
        """Something was measured, or said by an engine, so that time alone may change a decision."""
        self._now = 0.0
        self._admitted = 0

    # What the configuration offers

    @property
    def endpoints(self) -> int:
        """How many there are."""
        return len(self._replicas)

    def backends(self) -> tuple[str, ...]:
        """Backend names that a request may ask for."""
        return matching.unique(e.backend for e in self._placer.endpoints())

    def models(self, backend: str | None = None) -> tuple[str, ...]:
        """Model ids that endpoints (of one backend) name. An endpoint that accepts any model adds none."""
        endpoints = self._placer.endpoints()
        return matching.unique(m for e in endpoints if backend in (None, e.backend) for m in e.models)

    def mismatch(self, facts: RequestFacts) -> Mismatch | None:
        """Why no configured endpoint could ever serve the request; `None` when one could, healthy or not."""
        return self._placer.mismatch(facts)

    # A request's stay

    def admit(self, facts: RequestFacts, now: float, notify: Notify) -> Ticket:
        """Take in a request. Read `Ticket.decision`: an `Endpoint`, a `Reject`, or `None` while it waits.

        `notify` is called exactly once, from inside a later call, when a waiting ticket's decision is made;
        never when the decision is immediate, never after `cancel`.
        """
        self._tick(now)
        self._admitted += 1
        self._budget.note_request(now)
        place = self._classes.place(facts.priority, now, self._admitted, facts.ttft_budget_s)
        ticket = Ticket(self, facts, place, self._costs.estimate(facts, now), now)
        self.hedges.admitted(ticket, now)
        self._dispatcher.admit(ticket, now)
        self._dispatcher.announce()
        if ticket.decision is None:
            ticket.notify = notify
        return ticket

    def cancel(self, ticket: Ticket, now: float) -> None:
        """See `Ticket.cancel`."""
        ticket.notify = None
        if ticket.closed:
            return
        self._tick(now)
        if ticket.decision is None:
            self._dispatcher.withdraw(ticket, now, refusals.cancelled())
        elif not ticket.closed:  # the passing of time may have ended its wait
            self._vacate(ticket, now, None, FailureClass.CLIENT_GONE)
        self._dispatcher.announce()

    def settle(self, ticket: Ticket, now: float, usage: Usage | None, failure: FailureClass | None) -> None:
        """See `Ticket.settle`."""
        if ticket.decision is None:
            self.cancel(ticket, now)
        elif not ticket.closed:
            self._tick(now)
            self._vacate(ticket, now, usage, failure)
            self._dispatcher.announce()

    def answered(self, ticket: Ticket, now: float) -> None:
        """See `Ticket.answered`."""
        endpoint, lease = ticket.endpoint, ticket.lease
        if endpoint is None or lease is None or ticket.closed:
            return
        replica = self._replicas[endpoint.id]
        if lease.first_token_at is None:
            self.hedges.answered(ticket, replica, now, streamed=True)
        replica.first_token(lease, now)
        self._placer.computed(ticket, replica)
        self._informed = True
        ticket.permit = self._suspensions.answered(replica, ticket.permit, now)
        self._dispatcher.fill(replica, now)
        self._dispatcher.announce()

    def retry(self, ticket: Ticket, now: float, failure: FailureClass, notify: Notify) -> None:
        """See `Ticket.retry`."""
        failed, lease = ticket.endpoint, ticket.lease
        if failed is None or lease is None or ticket.closed:
            return
        self._tick(now)
        replica = self._replicas[failed.id]
        replica.vacate(lease)
        self._room.settle(ticket, 0)
        ticket.reopen(failed.id)
        self._suspensions.record(replica, ticket.permit, failure, now)
        if not self.hedges.rescues(ticket, failure, now):
            refusal = self._retry_refusal(ticket, failure, now)
            if refusal is None:
                self._dispatcher.readmit(ticket, now)
            else:
                self._dispatcher.close(ticket, refusal)
        self._dispatcher.fill(replica, now)
        self._dispatcher.announce()
        if ticket.decision is None:
            ticket.notify = notify

    def resume(
        self, ticket: Ticket, now: float, failure: FailureClass, facts: RequestFacts, notify: Notify
    ) -> None:
        """See `Ticket.resume`."""
        if ticket.endpoint is None or ticket.closed:
            return
        self._tick(now)
        self.hedges.drop(ticket, HedgeResult.LOST, now)  # it makes the whole answer, not the rest
        ticket.go_on(facts, self._costs.estimate(facts, now), now)
        self.retry(ticket, now, failure, notify)

    # What the outside reports

    def expire(self, now: float) -> float | None:
        """Do what the passing of time asks for: refuse the requests that have waited too long, and have
        breakers that were open long enough let a probe pass.

        Returns the time, on the caller's clock, at which to call again; `None` when nothing waits. Only a
        reported failure, or the first measurements, can move that time earlier: ask again after one, after a
        wait has begun, and at least every `RECHECK_S`.
        """
        self._tick(now)
        self._dispatcher.refuse_late(now)
        self._dispatcher.announce()
        deadline = self._room.next_deadline()
        if deadline is None:
            return None
        again_s = RECHECK_S if self._neighbours.alone else SHARED_RECHECK_S
        return min(deadline, self._suspensions.next_half_open, now + again_s if self._informed else inf)

    def set_health(self, endpoint_id: str, healthy: bool, now: float) -> None:
        """Report an endpoint's health. Raises `KeyError` on an unknown id.

        A recovered endpoint takes waiting requests at once, only one if its breaker is open; those that have
        no usable candidate left are refused. Requests in flight are not touched.
        """
        replica = self._replicas[endpoint_id]
        if healthy and not replica.healthy:
            replica.breaker.hasten(now)
            self._placer.restarted(replica, now)
        replica.healthy = healthy
        self._suspensions.changed(now)
        self._dispatcher.announce()

    def set_draining(self, endpoint_id: str, draining: bool, now: float) -> None:
        """Give an endpoint no new requests, or give it some again. Raises `KeyError` on an unknown id.

        Requests in flight are not touched.
        """
        self._replicas[endpoint_id].draining = draining
        self._suspensions.changed(now)
        self._dispatcher.announce()

    def force_breaker(self, endpoint_id: str, state: BreakerState | None, now: float) -> None:
        """Hold an endpoint's breaker open or closed, whatever happens; `None` lets it work by itself again,
        closed and with a clean record. Raises `KeyError` on an unknown id, `ValueError` on half-open."""
        breaker = self._replicas[endpoint_id].breaker
        if state is None:
            breaker.release()
        else:
            breaker.force(state)
        self._suspensions.changed(now)
        self._dispatcher.announce()

    def set_models(self, endpoint_id: str, models: Sequence[str], now: float) -> None:
        """Replace the models that an endpoint serves (discovered); empty means any. Raises `KeyError`."""
        endpoint = self._replicas[endpoint_id].endpoint
        self._set_endpoint(msgspec.structs.replace(endpoint, models=tuple(models)), now)

    def set_quant(self, endpoint_id: str, quant: str, now: float) -> None:
        """Replace the quantization that an endpoint runs (discovered). Raises `KeyError`."""
        endpoint = self._replicas[endpoint_id].endpoint
        self._set_endpoint(msgspec.structs.replace(endpoint, quant=quant), now)

    def _set_endpoint(self, endpoint: Endpoint, now: float) -> None:
        replica = self._replicas[endpoint.id]
        if replica.endpoint == endpoint:
            return
        replica.endpoint = endpoint
        self._placer.forget()
        self._suspensions.changed(now)
        self._dispatcher.announce()

    def record_load(self, endpoint_id: str, load: EngineLoad, now: float) -> None:
        """Keep an engine's own reading for the next placements. Raises `KeyError` on an unknown id.

        It may say that there is room for somebody who waits.
        """
        replica = self._replicas[endpoint_id]
        if replica.record_load(load, now):
            self._placer.restarted(replica, now)
        self._now = now
        self._informed = True
        self._dispatcher.fill(replica, now)
        self._dispatcher.announce()

    def snapshot(self) -> RouterSnapshot:
        """A frozen copy of the state."""
        return RouterSnapshot(
            replicas=tuple(r.snapshot(self._now) for r in self._replicas.values()),
            waiting=len(self._room),
            waiting_tokens=self._room.tokens,
            waiting_work=self._room.work,
            admitted=self._admitted,
            retries=self._placer.retries,
            prefix_blocks=self._placer.prefixes.blocks(),
            prefix_bytes=self._placer.prefixes.size_bytes(),
            outcomes=dict(self._dispatcher.outcomes),
            hedges=dict(self.hedges.counts),
        )

    def details(self, now: float) -> RouterDetails:
        """What the snapshot leaves out: it takes time in proportion to what waits."""
        return inspection.details(self._dispatcher, self._placer, self._budget, now)

    # Changing the state

    def _retry_refusal(self, ticket: Ticket, failure: FailureClass, now: float) -> Reject | None:
        """Why the request may not be tried again; `None`, and the budget is charged, when it may."""
        if not failures.may_retry(failure):
            return refusals.not_retried(failure)
        if ticket.attempts >= self._max_attempts or self._placer.step(ticket) is None:
            return refusals.attempts_used_up(ticket.attempts, self._recovery_s)
        if not self._budget.withdraw(now):
            return refusals.budget_spent(self._recovery_s)
        return None

    def _vacate(self, ticket: Ticket, now: float, usage: Usage | None, failure: FailureClass | None) -> None:
        """End a placed ticket's stay and hand its slot on."""
        lease = ticket.lease
        assert ticket.endpoint is not None and lease is not None
        replica = self._replicas[ticket.endpoint.id]
        if failure is None:
            self.hedges.answered(ticket, replica, now, streamed=False)
        self.hedges.drop(ticket, HedgeResult.LEFT, now)
        replica.vacate(lease)
        telling = failure is None and not ticket.resumed  # of which no endpoint has done all
        replica.record_service(lease, usage, now, well=telling)
        self._room.settle(ticket, None if usage is None else work_of(usage))
        self._placer.ended(ticket, replica, usage, well=failure is None)
        self._informed = self._informed or replica.measured
        if usage is not None and telling:
            self._costs.learn(ticket.facts, ticket.cost, usage, now)
        ticket.outcome = Outcome.DISPATCHED
        self._dispatcher.outcomes[Outcome.DISPATCHED] += 1
        self._suspensions.record(replica, ticket.permit, failure, now)
        self._dispatcher.fill(replica, now)

    def _tick(self, now: float) -> None:
        """Half-open the breakers whose time has come."""
        self._now = now
        self._suspensions.pass_time(now)


def _replicas(
    endpoints: Sequence[Endpoint],
    failover: Failover,
    policy: AdmissionPolicy,
    load_ttl_s: float,
    random: Callable[[], float],
    neighbours: Neighbours,
) -> dict[str, Replica]:
    """By endpoint id. Their turns come in the order of the configuration."""
    limit, open_s = failover.breaker_failures, failover.breaker_open_s
    peers = {endpoint.backend: Peers() for endpoint in endpoints}
    return {
        endpoint.id: Replica(
            endpoint,
            Breaker(limit, open_s, failover.breaker_max_open_s, random),
            number - len(endpoints),
            number=number,
            policy=policy,
            load_ttl_s=load_ttl_s,
            peers=peers[endpoint.backend],
            neighbours=neighbours,
            random=random,
        )
        for number, endpoint in enumerate(endpoints)
    }
