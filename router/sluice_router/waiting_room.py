"""Who waits, and how much that is: the queue with its bounds in requests, prompt tokens and bytes.

Invariant: the sums are exactly those of the tickets in the queue. One request alone may be larger than the
bounds on tokens and bytes, or it could never be served. Order and shelves are the queue's (`queue.py`); what
there is to wait for, and whether it is worth it, is the router's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from sluice_router import priority
from sluice_router.queue import WaitingQueue
from sluice_router.shelf import Lane
from sluice_router.ticket import Ticket

_Key = TypeVar("_Key")
_Share = tuple[Lane, int]
"""A set of endpoints, and a class of urgency."""


class WaitingRoom:
    """The waiting tickets."""

    __slots__ = (
        "_bytes",
        "_max_bytes",
        "_max_requests",
        "_max_tokens",
        "_own",
        "_queue",
        "_sums",
        "tokens",
        "work",
    )

    def __init__(
        self,
        max_requests: int,
        max_tokens: int | None,
        max_bytes: int | None,
        deadlines_s: Sequence[float],
    ) -> None:
        """The bounds, `None`: none; and the classes' deadlines."""
        self._queue: WaitingQueue[Ticket] = WaitingQueue(deadlines_s)
        self._max_requests = max_requests
        self._max_tokens = max_tokens
        self._max_bytes = max_bytes
        self._bytes = 0
        self.tokens = 0
        """Prompt tokens that wait."""
        self.work = 0
        """Cost of all that waits."""
        self._sums: dict[_Share, int] = {}
        """Cost of what waits, by lane and class."""
        self._own: dict[tuple[str, Lane, int], int] = {}
        """The same of each tenant."""

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def body_bytes(self) -> int:
        """Of the requests that wait."""
        return self._bytes

    def __iter__(self) -> Iterator[Ticket]:
        return iter(self._queue)

    def oldest(self, most: int) -> list[Ticket]:
        """Who has waited longest, so many at most."""
        return self._queue.oldest(most)

    def has_room(self, ticket: Ticket, extra: int = 0) -> bool:
        """Whether the ticket may wait. `extra`: requests by which the bound on them may be exceeded."""
        waiting = len(self._queue)
        if waiting >= self._max_requests + extra:
            return False
        tokens = self.tokens + ticket.cost.prompt_tokens
        return not waiting or self._fits(tokens, self._bytes + ticket.facts.body_bytes)

    def _fits(self, tokens: int, held: int) -> bool:
        """Whether so many prompt tokens and bytes may wait."""
        if self._max_tokens is not None and tokens > self._max_tokens:
            return False
        return self._max_bytes is None or held <= self._max_bytes

    def enter(self, ticket: Ticket, lane: Lane, deadline: float, now: float) -> None:
        """Begin to wait for the endpoints in `lane`, until `deadline` at most."""
        ticket.queued_at, ticket.lane = now, lane
        facts = ticket.facts
        self._queue.push(ticket.place, ticket, lane, _band(ticket), deadline, facts.tenant, facts.weight)
        self.tokens += ticket.cost.prompt_tokens
        self._bytes += ticket.facts.body_bytes
        self._count(ticket, ticket.cost.work)

    def leave(self, ticket: Ticket, now: float) -> None:
        """Wait no longer."""
        self._queue.remove(ticket.place)
        ticket.waited_s += now - ticket.queued_at
        self.tokens -= ticket.cost.prompt_tokens
        self._bytes -= ticket.facts.body_bytes
        self._count(ticket, -ticket.cost.work)

    def move(self, ticket: Ticket, lane: Lane) -> None:
        """Wait for other endpoints."""
        if lane != ticket.lane:
            self._count(ticket, -ticket.cost.work)
            ticket.lane = lane
            self._count(ticket, ticket.cost.work)
            self._queue.move(ticket.place, lane)

    def work_ahead(self, lane: Lane, band: int) -> int:
        """Cost of those who wait for some of the endpoints in `lane` and are at least as urgent as `band`.

        The less urgent ones who are served earlier all the same, because they have waited long, are left
        out: what is ahead is rather under- than overestimated.
        """
        return sum(
            work
            for (other, urgency), work in self._sums.items()
            if urgency <= band and (other is lane or not other.isdisjoint(lane))
        )

    def work_of_class(self, lane: Lane, band: int) -> int:
        """Cost of those of a class who wait for some of the endpoints in `lane`."""
        return sum(
            work
            for (other, urgency), work in self._sums.items()
            if urgency == band and (other is lane or not other.isdisjoint(lane))
        )

    def work_of_tenant(self, ticket: Ticket, lane: Lane) -> int:
        """Cost of what the ticket's tenant has waiting there in the ticket's class."""
        band, tenant = _band(ticket), ticket.facts.tenant
        return sum(
            self._own.get((tenant, other, band), 0)
            for (other, urgency) in self._sums
            if urgency == band and (other is lane or not other.isdisjoint(lane))
        )

    def rivals(self, ticket: Ticket, lane: Lane) -> float:
        """The sum of the weights of those who wait there in the ticket's class, its own tenant's included."""
        facts = ticket.facts
        return self._queue.rivals(lane, _band(ticket), facts.tenant, facts.weight)

    def claimed(self, ticket: Ticket | None = None) -> Lane:
        """The endpoints that somebody waits for. Given a waiting ticket whose turn it is at one of them:
        those where that does not mean that it is its turn as well."""
        return self._queue.claimed(None if ticket is None else ticket.place)

    def leads(self, ticket: Ticket) -> bool:
        """Whether its turn may have come somewhere: it is the first of those that wait for the same."""
        return self._queue.leads(ticket.place)

    def first_for(self, endpoint_id: str, now: float) -> Ticket | None:
        """Whose turn it is when the endpoint has room."""
        return self._queue.first_for(endpoint_id, now)

    def charge(self, ticket: Ticket, lane: Lane, endpoint_id: str) -> None:
        """Count what a ticket that was placed is about to get as its tenant's."""
        facts = ticket.facts
        ticket.charge = self._queue.charge(
            endpoint_id, lane, _band(ticket), facts.tenant, ticket.cost.work, facts.weight
        )

    def settle(self, ticket: Ticket, work: int | None) -> None:
        """Put right what was counted, when it is known; with `None` the estimate stands."""
        charge, ticket.charge = ticket.charge, None
        if charge is not None:
            self._queue.settle(charge, charge.cost if work is None else work)

    def to_displace(self, ticket: Ticket) -> list[Ticket]:
        """Tickets that are less urgent, or of tenants that hold more of the queue, without which the ticket
        would have room; empty when all of them are not enough."""
        found: list[Ticket] = []
        tokens = self.tokens + ticket.cost.prompt_tokens
        held = self._bytes + ticket.facts.body_bytes
        for other in self._queue.from_the_last(_band(ticket), ticket.facts.tenant, ticket.facts.weight):
            found.append(other)
            tokens -= other.cost.prompt_tokens
            held -= other.facts.body_bytes
            left = len(self._queue) - len(found)
            if left < self._max_requests and (not left or self._fits(tokens, held)):
                return found
        return []

    def expired(self, now: float) -> list[Ticket]:
        """Who has waited until the deadline. They stay."""
        return self._queue.expired(now)

    def next_deadline(self) -> float | None:
        """The earliest of all; `None` when nobody waits."""
        return self._queue.next_deadline()

    def _count(self, ticket: Ticket, work: int) -> None:
        share = ticket.lane, _band(ticket)
        own = ticket.facts.tenant, *share
        self.work += work
        _add(self._sums, share, work)
        _add(self._own, own, work)


def _add(sums: dict[_Key, int], key: _Key, work: int) -> None:
    total = sums.get(key, 0) + work
    if total:
        sums[key] = total
    else:
        sums.pop(key, None)


def _band(ticket: Ticket) -> int:
    return priority.BANDS[ticket.facts.priority]
