"""Admission, waiting and placement of requests: facts in, decisions out.

Invariants, true between any two calls:

- no endpoint has more requests in flight than its `max_in_flight`; one whose breaker is half-open has been
  given at most one request since;
- nothing waits that could run: a ticket waits for the first of its targets that has a usable endpoint (well,
  wanted, breaker not open), and only while all of that target's usable endpoints are full; it is refused as
  soon as no target has one;
- every ticket is closed with exactly one outcome:
  admitted == waiting + in flight + the sum of all outcomes;
- retries stay within the budget (`budget.py`).

Who waits is served by urgency and age (`priority.py`). When the queue is full, a more urgent arrival takes
the place of the youngest of the least urgent.

The caller passes the time (seconds, monotonic) and calls `expire` when the time that it returned has come. It
starts nothing by itself and is not to be shared between threads. `notify` callbacks run at the end of the
call that decided, when the state is consistent again, so that they may call back.

The bound on the queue counts all waiting requests together. A retried request was already admitted and may
exceed it, by as many as fit in flight.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from math import inf

import msgspec

from sluice_router import failure as failures
from sluice_router import matching, placement, priority, refusals
from sluice_router.breaker import Breaker, BreakerState
from sluice_router.budget import RetryBudget
from sluice_router.failure import Failover
from sluice_router.matching import Mismatch
from sluice_router.plan import Planner, Step
from sluice_router.queue import WaitingQueue
from sluice_router.replica import Replica
from sluice_router.snapshot import RouterSnapshot
from sluice_router.ticket import Notify, Ticket
from sluice_router.types import (
    Endpoint,
    EngineLoad,
    FailureClass,
    Outcome,
    Reject,
    RequestFacts,
    Usage,
)


class Router:
    """Decides where requests run and which wait. Does no I/O."""

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        *,
        max_queue: int,
        queue_timeout_s: float,
        failover: Failover = Failover(),  # noqa: B008  (it is frozen)
        load_ttl_s: float = 10.0,
        recovery_s: float = 5.0,
        random: Callable[[], float] = lambda: 0.5,
    ) -> None:
        """Start with all endpoints healthy and empty.

        `max_queue`: requests that may wait at once. `queue_timeout_s`: longest wait of one. `load_ttl_s`: age
        at which an engine's reading stops counting. `recovery_s`: what `Retry-After` says while no endpoint
        is healthy. `random`: numbers from 0 to 1, for the breakers' jitter. Raises `ValueError` on two
        endpoints with the same id.
        """
        self._replicas = _replicas(endpoints, failover, random)
        if len(self._replicas) != len(endpoints):
            raise ValueError("endpoint ids must be unique")
        self._max_queue = max_queue
        self._slots = sum(endpoint.max_in_flight for endpoint in endpoints)
        self._queue_timeout_s = queue_timeout_s
        self._max_attempts = failover.max_attempts
        self._avoid_s = failover.avoid_s
        self._budget = RetryBudget(failover.retry_ratio, failover.retry_floor, failover.retry_window_s)
        self._load_ttl_s = load_ttl_s
        self._recovery_s = recovery_s
        self._queue: WaitingQueue[Ticket] = WaitingQueue()
        self._planner = Planner(self._replicas)
        self._decided: deque[Ticket] = deque()
        self._next_half_open = inf
        self._admitted = 0
        self._placements = 0
        self._retries = 0
        self._outcomes = dict.fromkeys(Outcome, 0)

    # What the configuration offers

    def backends(self) -> tuple[str, ...]:
        """Backend names that a request may ask for."""
        return matching.unique(e.backend for e in self._endpoints())

    def models(self, backend: str | None = None) -> tuple[str, ...]:
        """Model ids that endpoints (of one backend) name. An endpoint that accepts any model adds none."""
        return matching.unique(m for e in self._endpoints() if backend in (None, e.backend) for m in e.models)

    def mismatch(self, facts: RequestFacts) -> Mismatch | None:
        """Why no configured endpoint could ever serve the request; `None` when one could, healthy or not."""
        return matching.mismatch(self._endpoints(), facts)

    # A request's stay

    def admit(self, facts: RequestFacts, now: float, notify: Notify) -> Ticket:
        """Take in a request. Read `Ticket.decision`: an `Endpoint`, a `Reject`, or `None` while it waits.

        `notify` is called exactly once, from inside a later call, when a waiting ticket's decision is made;
        never when the decision is immediate, never after `cancel`.
        """
        self._tick(now)
        self._admitted += 1
        self._budget.note_request(now)
        place = priority.place(facts.priority, now, self._queue_timeout_s, self._admitted)
        ticket = Ticket(self, facts, place)
        step = self._decide(ticket, now)
        if step is not None:
            self._wait_or_shed(ticket, step, now)
        self._announce()
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
            self._leave_queue(ticket, now)
            self._close(ticket, refusals.cancelled())
        else:
            self._vacate(ticket, now, None, FailureClass.CLIENT_GONE)
        self._announce()

    def settle(self, ticket: Ticket, now: float, usage: Usage | None, failure: FailureClass | None) -> None:
        """See `Ticket.settle`."""
        if ticket.decision is None:
            self.cancel(ticket, now)
        elif not ticket.closed:
            self._tick(now)
            self._vacate(ticket, now, usage, failure)
            self._announce()

    def answered(self, ticket: Ticket, now: float) -> None:
        """See `Ticket.answered`."""
        endpoint = ticket.endpoint
        if endpoint is None or ticket.closed:
            return
        replica = self._replicas[endpoint.id]
        ticket.permit = replica.breaker.answered(ticket.permit)
        self._fill(replica, now)
        self._announce()

    def retry(self, ticket: Ticket, now: float, failure: FailureClass, notify: Notify) -> None:
        """See `Ticket.retry`."""
        failed = ticket.endpoint
        if failed is None or ticket.closed:
            return
        self._tick(now)
        replica = self._replicas[failed.id]
        replica.vacate()
        ticket.reopen(failed.id)
        self._record(replica, ticket, failure, now)
        refusal = self._retry_refusal(ticket, failure, now)
        if refusal is not None:
            self._close(ticket, refusal)
        elif (step := self._decide(ticket, now)) is not None:
            if len(self._queue) < self._max_queue + self._slots:
                self._enqueue(ticket, step, now)
            else:
                self._close(ticket, refusals.shed(self._retry_after_s(step)))
        self._fill(replica, now)
        self._announce()
        if ticket.decision is None:
            ticket.notify = notify

    # What the outside reports

    def expire(self, now: float) -> float | None:
        """Do what the passing of time asks for: refuse the requests that have waited too long, and have
        breakers that were open long enough let a probe pass.

        Returns the time, on the caller's clock, at which to call again; `None` when nothing waits. Only a
        reported failure can move that time earlier: ask again after one, and after a wait has begun.
        """
        self._tick(now)
        for ticket in self._queue.expired(now):
            ahead_s = self._retry_after_s(self._step(ticket))
            self._refuse_waiting(ticket, now, refusals.timed_out(self._queue_timeout_s, ahead_s))
        self._announce()
        deadline = self._queue.next_deadline()
        return None if deadline is None else min(deadline, self._next_half_open)

    def set_health(self, endpoint_id: str, healthy: bool, now: float) -> None:
        """Report an endpoint's health. Raises `KeyError` on an unknown id.

        A recovered endpoint takes waiting requests at once, only one if its breaker is open; those that have
        no usable candidate left are refused. Requests in flight are not touched.
        """
        replica = self._replicas[endpoint_id]
        if healthy and not replica.healthy:
            replica.breaker.hasten(now)
        replica.healthy = healthy
        self._usability_changed(now)
        self._announce()

    def set_draining(self, endpoint_id: str, draining: bool, now: float) -> None:
        """Give an endpoint no new requests, or give it some again. Raises `KeyError` on an unknown id.

        Requests in flight are not touched.
        """
        self._replicas[endpoint_id].draining = draining
        self._usability_changed(now)
        self._announce()

    def force_breaker(self, endpoint_id: str, state: BreakerState | None, now: float) -> None:
        """Hold an endpoint's breaker open or closed, whatever happens; `None` lets it work by itself again,
        closed and with a clean record. Raises `KeyError` on an unknown id, `ValueError` on half-open."""
        breaker = self._replicas[endpoint_id].breaker
        if state is None:
            breaker.release()
        else:
            breaker.force(state)
        self._usability_changed(now)
        self._announce()

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
        self._planner.forget()
        self._usability_changed(now)
        self._announce()

    def record_load(self, endpoint_id: str, load: EngineLoad, now: float) -> None:
        """Keep an engine's own reading for the next placements. Raises `KeyError` on an unknown id."""
        self._replicas[endpoint_id].record_load(load, now)

    def snapshot(self) -> RouterSnapshot:
        """A frozen copy of the state."""
        return RouterSnapshot(
            replicas=tuple(r.snapshot() for r in self._replicas.values()),
            waiting=len(self._queue),
            admitted=self._admitted,
            retries=self._retries,
            outcomes=dict(self._outcomes),
        )

    # Deciding

    def _endpoints(self) -> Iterable[Endpoint]:
        return (r.endpoint for r in self._replicas.values())

    def _step(self, ticket: Ticket) -> Step | None:
        """The first target that is worth waiting for, without the endpoints that failed the ticket."""
        for step in self._planner.steps(ticket.facts):
            left = step.without(ticket.excluded)
            if left.usable:
                return left
        return None

    def _decide(self, ticket: Ticket, now: float) -> Step | None:
        """Place or refuse the ticket if that can be done now; otherwise what it has to wait for."""
        step = self._step(ticket)
        if step is None:
            self._close(ticket, self._unservable(ticket, now))
            return None
        return None if self._place(ticket, step, now) else step

    def _place(self, ticket: Ticket, step: Step, now: float) -> bool:
        """Place the ticket; False when all endpoints of the step are full."""
        picked = placement.choose(step.members, ticket.facts, now, self._load_ttl_s)
        if picked is None:
            return False
        replica, ticket.reason = picked
        target = step.target
        ticket.model, ticket.choice, ticket.relaxed = target.facts.model, target.choice, target.relaxed
        self._placements += 1
        replica.occupy(self._placements)
        ticket.permit = replica.breaker.admit()
        ticket.decision = replica.endpoint
        if ticket.attempts:
            self._retries += 1
        ticket.attempts += 1
        ticket.placed_at = now
        return True

    def _wait_or_shed(self, ticket: Ticket, step: Step, now: float) -> None:
        """Its target is full: wait; or, if the queue is full too, be served by a lesser target, take a less
        urgent request's place, or be refused."""
        if len(self._queue) >= self._max_queue:
            if any(self._place(ticket, later, now) for later in self._planner.steps(ticket.facts)):
                return
            weaker = self._queue.last_below(priority.BANDS[ticket.facts.priority])
            if weaker is None:
                self._close(ticket, refusals.shed(self._retry_after_s(step)))
                return
            ahead_s = self._retry_after_s(self._step(weaker))
            self._refuse_waiting(weaker, now, refusals.displaced(ahead_s))
        self._enqueue(ticket, step, now)

    def _retry_refusal(self, ticket: Ticket, failure: FailureClass, now: float) -> Reject | None:
        """Why the request may not be tried again; `None`, and the budget is charged, when it may."""
        if not failures.may_retry(failure):
            return refusals.not_retried(failure)
        if ticket.attempts >= self._max_attempts or self._step(ticket) is None:
            return refusals.attempts_used_up(ticket.attempts, self._recovery_s)
        if not self._budget.withdraw(now):
            return refusals.budget_spent(self._recovery_s)
        return None

    def _unservable(self, ticket: Ticket, now: float) -> Reject:
        """Why no target has a usable endpoint."""
        steps = self._planner.steps(ticket.facts)
        members = [replica for step in steps for replica in step.without(ticket.excluded).members]
        if members:
            return refusals.none_usable(ticket.facts.model, members, now, self._recovery_s)
        found = self.mismatch(ticket.facts)
        if found is not None:
            return refusals.unservable(found.message)
        return refusals.attempts_used_up(ticket.attempts, self._recovery_s)

    def _retry_after_s(self, step: Step | None) -> float:
        if step is None:
            return self._recovery_s
        ahead = self._queue.count_overlapping(step.lane)
        return placement.estimate_wait_s(ahead, step.members, self._queue_timeout_s)

    # Changing the state

    def _close(self, ticket: Ticket, reject: Reject) -> None:
        ticket.decision = reject
        ticket.outcome = reject.outcome
        self._outcomes[reject.outcome] += 1

    def _vacate(self, ticket: Ticket, now: float, usage: Usage | None, failure: FailureClass | None) -> None:
        """End a placed ticket's stay and hand its slot on."""
        assert ticket.endpoint is not None
        replica = self._replicas[ticket.endpoint.id]
        replica.vacate()
        replica.record_service(now - ticket.placed_at, usage)
        ticket.outcome = Outcome.DISPATCHED
        self._outcomes[Outcome.DISPATCHED] += 1
        self._record(replica, ticket, failure, now)
        self._fill(replica, now)

    def _record(self, replica: Replica, ticket: Ticket, failure: FailureClass | None, now: float) -> None:
        """Tell the endpoint's breaker how an attempt ended."""
        breaker = replica.breaker
        if failure is not None and failures.is_the_endpoints(failure):
            replica.avoid_until = now + self._avoid_s
        if failure is None:
            breaker.succeed(ticket.permit)
        elif not failures.counts(failure):
            breaker.dismiss(ticket.permit)
        else:
            before = breaker.state
            breaker.fail(ticket.permit, now)
            if breaker.state is not before:
                self._usability_changed(now)

    def _enqueue(self, ticket: Ticket, step: Step, now: float) -> None:
        ticket.queued_at = now
        deadline = now + self._queue_timeout_s
        self._queue.push(ticket.place, ticket, step.lane, priority.BANDS[ticket.facts.priority], deadline)

    def _leave_queue(self, ticket: Ticket, now: float) -> None:
        self._queue.remove(ticket.place)
        ticket.waited_s += now - ticket.queued_at

    def _fill(self, replica: Replica, now: float) -> None:
        """Give the replica's free slots to those who come first among those who wait for it."""
        while len(self._queue) and replica.available:
            ticket = self._queue.first_for(replica.endpoint.id)
            if ticket is None:
                return
            self._leave_queue(ticket, now)
            self._decide(ticket, now)
            self._decided.append(ticket)

    def _tick(self, now: float) -> None:
        """Half-open the breakers whose time has come."""
        if now >= self._next_half_open:
            self._usability_changed(now)

    def _usability_changed(self, now: float) -> None:
        """Have every waiting request wait for the first target that is now worth it, run, or be refused."""
        for replica in self._replicas.values():
            replica.breaker.half_open(now)
        times = (r.breaker.half_open_at for r in self._replicas.values())
        self._next_half_open = min((t for t in times if t is not None), default=inf)
        for ticket in list(self._queue):
            step = self._step(ticket)
            if step is None:
                self._refuse_waiting(ticket, now, self._unservable(ticket, now))
            else:
                self._queue.move(ticket.place, step.lane)
        for replica in self._replicas.values():
            self._fill(replica, now)

    def _refuse_waiting(self, ticket: Ticket, now: float, reject: Reject) -> None:
        self._leave_queue(ticket, now)
        self._close(ticket, reject)
        self._decided.append(ticket)

    def _announce(self) -> None:
        """Call the callbacks of tickets decided meanwhile, each once, unless cancelled in between."""
        while self._decided:
            ticket = self._decided.popleft()
            if ticket.decision is not None and (notify := ticket.notify) is not None:
                ticket.notify = None
                notify()


def _replicas(
    endpoints: Sequence[Endpoint], failover: Failover, random: Callable[[], float]
) -> dict[str, Replica]:
    """By endpoint id. Their turns come in the order of the configuration."""
    limit, open_s, max_open_s = (
        failover.breaker_failures,
        failover.breaker_open_s,
        failover.breaker_max_open_s,
    )
    return {
        endpoint.id: Replica(endpoint, Breaker(limit, open_s, max_open_s, random), order - len(endpoints))
        for order, endpoint in enumerate(endpoints)
    }
