"""Who waits, and how much that is: the queue with its bounds in requests, prompt tokens and bytes.

Invariant: the sums are exactly those of the tickets in the queue. One request alone may be larger than the
bounds on tokens and bytes, or it could never be served. Order and shelves are the queue's (`queue.py`); what
there is to wait for, and whether it is worth it, is the router's.
"""

from __future__ import annotations

from collections.abc import Iterator

from sluice_router import priority
from sluice_router.queue import Lane, Place, WaitingQueue
from sluice_router.ticket import Ticket

_Share = tuple[Lane, int]
"""A set of endpoints, and a class of urgency."""


class WaitingRoom:
    """The waiting tickets."""

    __slots__ = (
        "_bytes",
        "_max_bytes",
        "_max_requests",
        "_max_tokens",
        "_queue",
        "_sums",
        "tokens",
        "work",
    )

    def __init__(self, max_requests: int, max_tokens: int | None, max_bytes: int | None) -> None:
        """The bounds; `None`: none."""
        self._queue: WaitingQueue[Ticket] = WaitingQueue()
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

    def __len__(self) -> int:
        return len(self._queue)

    def __iter__(self) -> Iterator[Ticket]:
        return iter(self._queue)

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
        self._queue.push(ticket.place, ticket, lane, _band(ticket), deadline)
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

    def claimed_before(self, place: Place) -> Lane:
        """The endpoints that somebody waits for who comes before `place`."""
        claimed: Lane = frozenset()
        for lane, first in self._queue.heads():
            if first < place and not lane <= claimed:
                claimed = claimed | lane if claimed else lane
        return claimed

    def first_for(self, endpoint_id: str) -> Ticket | None:
        """Whose turn it is when the endpoint has room."""
        return self._queue.first_for(endpoint_id)

    def to_displace(self, ticket: Ticket) -> list[Ticket]:
        """Less urgent tickets, the last of the least urgent first, without which the ticket would have room;
        empty when all of them are not enough."""
        found: list[Ticket] = []
        tokens = self.tokens + ticket.cost.prompt_tokens
        held = self._bytes + ticket.facts.body_bytes
        for other in self._queue.from_the_last(_band(ticket)):
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
        self.work += work
        total = self._sums.get(share, 0) + work
        if total:
            self._sums[share] = total
        else:
            self._sums.pop(share, None)


def _band(ticket: Ticket) -> int:
    return priority.BANDS[ticket.facts.priority]
