"""Admission, waiting and placement of requests: facts in, decisions out.

Invariants, true between any two calls:

- no endpoint has more requests in flight than its `max_in_flight`;
- nothing waits that could run: a ticket waits only while every healthy candidate is full, and is refused as
  soon as no candidate is healthy;
- every ticket is closed with exactly one outcome:
  admitted == waiting + in flight + the sum of all outcomes.

The caller passes the time (seconds, monotonic) and calls `expire` when the time that it returned has come;
one call after an `admit` or `retry` that left a ticket waiting is enough to learn it. It starts nothing
by itself and is not to be shared between threads. `notify` callbacks run at the end of the call that decided,
when the state is consistent again, so that they may call back.

The bound on the queue counts all waiting requests together. A retried request was already admitted and may
exceed it: never by more than fits in flight.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

import msgspec

from sluice_router import placement
from sluice_router.placement import Mismatch
from sluice_router.queue import Lane, WaitingQueue
from sluice_router.replica import Replica, ReplicaSnapshot
from sluice_router.ticket import Notify, Ticket
from sluice_router.types import Endpoint, EngineLoad, Outcome, Reject, RequestFacts, Usage

_Demand = tuple[str | None, frozenset[str] | None, str, str, str | None, frozenset[str]]
_DEMANDS_REMEMBERED = 1024
"""Model names come from clients, so what is remembered about them needs a bound."""


class RouterSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The router's state at one moment, for metrics and the admin view."""

    replicas: tuple[ReplicaSnapshot, ...]
    """In the order of the configuration."""
    waiting: int
    admitted: int
    """Tickets issued since the start, refused ones included."""
    outcomes: dict[Outcome, int]
    """Closed tickets by outcome; every outcome has an entry."""


class Router:
    """Decides where requests run and which wait. Does no I/O."""

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        *,
        max_queue: int,
        queue_timeout_s: float,
        max_attempts: int = 3,
        load_ttl_s: float = 10.0,
        recovery_s: float = 5.0,
    ) -> None:
        """Start with all endpoints healthy and empty.

        `max_queue`: requests that may wait at once. `queue_timeout_s`: longest wait of one. `max_attempts`:
        times one request may be placed. `load_ttl_s`: age at which an engine's reading stops counting.
        `recovery_s`: what `Retry-After` says while no endpoint is healthy. Raises `ValueError` on two
        endpoints with the same id.
        """
        self._replicas = {e.id: Replica(e, order - len(endpoints)) for order, e in enumerate(endpoints)}
        if len(self._replicas) != len(endpoints):
            raise ValueError("endpoint ids must be unique")
        self._max_queue = max_queue
        self._queue_timeout_s = queue_timeout_s
        self._max_attempts = max_attempts
        self._load_ttl_s = load_ttl_s
        self._recovery_s = recovery_s
        self._queue: WaitingQueue[Ticket] = WaitingQueue()
        self._lane_memo: dict[_Demand, Lane] = {}
        self._decided: deque[Ticket] = deque()
        self._admitted = 0
        self._placements = 0
        self._outcomes = dict.fromkeys(Outcome, 0)

    # What the configuration offers

    def backends(self) -> tuple[str, ...]:
        """Backend names that a request may ask for."""
        return placement.unique(e.backend for e in self._endpoints())

    def models(self, backend: str | None = None) -> tuple[str, ...]:
        """Model ids that endpoints (of one backend) name. An endpoint that accepts any model adds none."""
        return placement.unique(
            m for e in self._endpoints() if backend in (None, e.backend) for m in e.models
        )

    def mismatch(self, facts: RequestFacts) -> Mismatch | None:
        """Why no configured endpoint could ever serve the request; `None` when one could, healthy or not."""
        return placement.mismatch(self._endpoints(), facts)

    # A request's stay

    def admit(self, facts: RequestFacts, now: float, notify: Notify) -> Ticket:
        """Take in a request. Read `Ticket.decision`: an `Endpoint`, a `Reject`, or `None` while it waits.

        `notify` is called exactly once, from inside a later call, when a waiting ticket's decision is made;
        never when the decision is immediate, never after `cancel`.
        """
        self._admitted += 1
        ticket = Ticket(self, facts, self._admitted)
        lane = self._lane(ticket)
        if self._place_or_refuse(ticket, lane, now):
            return ticket
        if len(self._queue) >= self._max_queue:
            self._close(ticket, self._shed(lane))
        else:
            self._enqueue(ticket, lane, now, notify)
        return ticket

    def cancel(self, ticket: Ticket, now: float) -> None:
        """See `Ticket.cancel`."""
        ticket.notify = None
        if ticket.closed:
            return
        if ticket.decision is None:
            self._leave_queue(ticket, now)
            self._close(ticket, Reject(outcome=Outcome.CANCELLED, status=499, message="The client left."))
        else:
            self._vacate(ticket, now, None)
        self._announce()

    def settle(self, ticket: Ticket, now: float, usage: Usage | None) -> None:
        """See `Ticket.settle`."""
        if ticket.decision is None:
            self.cancel(ticket, now)
        elif not ticket.closed:
            self._vacate(ticket, now, usage)
            self._announce()

    def retry(self, ticket: Ticket, now: float, notify: Notify) -> None:
        """See `Ticket.retry`."""
        failed = ticket.endpoint
        if failed is None or ticket.closed:
            return
        replica = self._replicas[failed.id]
        replica.vacate()
        ticket.decision = None
        ticket.excluded |= {failed.id}
        lane = self._lane(ticket)
        if ticket.attempts >= self._max_attempts:
            self._close(ticket, self._exhausted(ticket))
        elif not self._place_or_refuse(ticket, lane, now):
            self._enqueue(ticket, lane, now, notify)
        self._fill(replica, now)
        self._announce()

    # What the outside reports

    def expire(self, now: float) -> float | None:
        """Refuse the requests that have waited too long.

        Returns the time, on the caller's clock, at which to call again; `None` when nothing waits. The time
        never moves earlier by later calls, so one timer is enough.
        """
        for ticket in self._queue.expired(now):
            self._refuse_waiting(ticket, now, self._timed_out(self._lane(ticket)))
        self._announce()
        return self._queue.next_deadline()

    def set_health(self, endpoint_id: str, healthy: bool, now: float) -> None:
        """Report an endpoint's health. Raises `KeyError` on an unknown id.

        A recovered endpoint takes waiting requests at once; those that have no healthy candidate left are
        refused. Requests in flight are not touched.
        """
        replica = self._replicas[endpoint_id]
        replica.healthy = healthy
        if healthy:
            self._fill(replica, now)
        else:
            self._refuse_stranded(now)
        self._announce()

    def set_models(self, endpoint_id: str, models: Sequence[str], now: float) -> None:
        """Replace the models that an endpoint serves (discovered); empty means any. Raises `KeyError`."""
        replica = self._replicas[endpoint_id]
        if replica.endpoint.models == tuple(models):
            return
        replica.endpoint = msgspec.structs.replace(replica.endpoint, models=tuple(models))
        self._lane_memo.clear()
        for ticket in list(self._queue):
            self._queue.move(ticket.order, self._lane(ticket))
        self._refuse_stranded(now)
        for other in self._replicas.values():
            self._fill(other, now)
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
            outcomes=dict(self._outcomes),
        )

    # Inside

    def _endpoints(self) -> Iterable[Endpoint]:
        return (r.endpoint for r in self._replicas.values())

    def _lane(self, ticket: Ticket) -> Lane:
        """Ids of the endpoints that may serve the ticket, those that failed it left out."""
        facts = ticket.facts
        demand = (facts.backend, facts.allowed_backends, facts.kind, facts.model, facts.quant, facts.needs)
        lane = self._lane_memo.get(demand)
        if lane is None:
            if len(self._lane_memo) >= _DEMANDS_REMEMBERED:
                self._lane_memo.clear()
            lane = frozenset(e.id for e in placement.candidates(self._endpoints(), facts))
            self._lane_memo[demand] = lane
        return lane - ticket.excluded

    def _members(self, lane: Lane) -> list[Replica]:
        return [self._replicas[endpoint_id] for endpoint_id in lane]

    def _place_or_refuse(self, ticket: Ticket, lane: Lane, now: float) -> bool:
        """Decide now if that can be done; False when the ticket has to wait for room."""
        replica = placement.least_loaded(self._members(lane), now, self._load_ttl_s)
        if replica is not None:
            self._place(ticket, replica, now)
            return True
        if any(r.healthy for r in self._members(lane)):
            return False
        self._close(ticket, self._unservable(ticket, lane))
        return True

    def _place(self, ticket: Ticket, replica: Replica, now: float) -> None:
        self._placements += 1
        replica.occupy(self._placements)
        ticket.decision = replica.endpoint
        ticket.attempts += 1
        ticket.placed_at = now

    def _close(self, ticket: Ticket, reject: Reject) -> None:
        ticket.decision = reject
        ticket.outcome = reject.outcome
        self._outcomes[reject.outcome] += 1

    def _vacate(self, ticket: Ticket, now: float, usage: Usage | None) -> None:
        """End a placed ticket's stay and hand its slot on."""
        assert ticket.endpoint is not None
        replica = self._replicas[ticket.endpoint.id]
        replica.vacate()
        replica.record_service(now - ticket.placed_at, usage)
        ticket.outcome = Outcome.DISPATCHED
        self._outcomes[Outcome.DISPATCHED] += 1
        self._fill(replica, now)

    def _enqueue(self, ticket: Ticket, lane: Lane, now: float, notify: Notify) -> None:
        ticket.notify = notify
        ticket.queued_at = now
        self._queue.push(ticket.order, ticket, lane, now + self._queue_timeout_s)

    def _leave_queue(self, ticket: Ticket, now: float) -> None:
        self._queue.remove(ticket.order)
        ticket.waited_s += now - ticket.queued_at

    def _fill(self, replica: Replica, now: float) -> None:
        """Give the replica's free slots to those who have waited longest for it."""
        while replica.available:
            ticket = self._queue.oldest_for(replica.endpoint.id)
            if ticket is None:
                return
            self._leave_queue(ticket, now)
            self._place_or_refuse(ticket, self._lane(ticket), now)
            self._decided.append(ticket)

    def _refuse_stranded(self, now: float) -> None:
        """Refuse the waiting tickets that have no healthy candidate."""
        for ticket in list(self._queue):
            lane = self._lane(ticket)
            if not any(r.healthy for r in self._members(lane)):
                self._refuse_waiting(ticket, now, self._unservable(ticket, lane))

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

    # Refusals

    def _retry_after_s(self, lane: Lane) -> float:
        ahead = self._queue.count_overlapping(lane)
        return placement.estimate_wait_s(ahead, self._members(lane), self._queue_timeout_s)

    def _shed(self, lane: Lane) -> Reject:
        return Reject(
            outcome=Outcome.SHED_CAPACITY,
            status=429,
            message="All engines are busy and the queue is full; try again after the time in Retry-After.",
            retry_after_s=self._retry_after_s(lane),
        )

    def _timed_out(self, lane: Lane) -> Reject:
        return Reject(
            outcome=Outcome.EXPIRED,
            status=503,
            message=f"The request waited {self._queue_timeout_s:g} s and no engine had room; try again after"
            " the time in Retry-After.",
            retry_after_s=self._retry_after_s(lane),
        )

    def _unservable(self, ticket: Ticket, lane: Lane) -> Reject:
        if lane:
            message = (
                f"No engine for model '{ticket.facts.model}' is healthy at the moment; try again shortly."
            )
        elif ticket.excluded:
            return self._exhausted(ticket)
        else:
            found = self.mismatch(ticket.facts)
            message = found.message if found else f"No engine serves model '{ticket.facts.model}'."
            return Reject(outcome=Outcome.NO_ENDPOINT, status=503, message=message)
        return self._no_endpoint(message)

    def _exhausted(self, ticket: Ticket) -> Reject:
        times = "once" if ticket.attempts == 1 else f"{ticket.attempts} times"
        return self._no_endpoint(
            f"The engine failed before answering (tried {times}) and no other one is left; try again shortly."
        )

    def _no_endpoint(self, message: str) -> Reject:
        return Reject(
            outcome=Outcome.NO_ENDPOINT, status=503, message=message, retry_after_s=self._recovery_s
        )
