"""One request's stay in the router: waiting, placed on an endpoint, or refused; closed exactly once.

    admit ──► waiting ──► placed ──► closed (DISPATCHED)
                 │  ▲        │
                 │  └─ retry ┘
                 └──► refused or cancelled: closed (SHED_CAPACITY, NO_ENDPOINT, EXPIRED, CANCELLED)

The ticket is a handle: its verbs ask the router, which changes the fields. Whoever got a ticket must close it
with `settle` or `cancel`; both may be called at any time and any number of times, only the first has an
effect.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from sluice_router.types import Endpoint, Outcome, Reject, RequestFacts, Usage

Notify = Callable[[], None]
"""Called without arguments when a waiting ticket gets its decision. Must not raise; may call the router."""


class Desk(Protocol):
    """What a ticket asks of the router that issued it."""

    def cancel(self, ticket: Ticket, now: float) -> None:
        """See `Ticket.cancel`."""
        ...

    def settle(self, ticket: Ticket, now: float, usage: Usage | None) -> None:
        """See `Ticket.settle`."""
        ...

    def retry(self, ticket: Ticket, now: float, notify: Notify) -> None:
        """See `Ticket.retry`."""
        ...


class Ticket:
    """A request that was handed to the router."""

    __slots__ = (
        "_desk",
        "attempts",
        "decision",
        "excluded",
        "facts",
        "notify",
        "order",
        "outcome",
        "placed_at",
        "queued_at",
        "waited_s",
    )

    def __init__(self, desk: Desk, facts: RequestFacts, order: int) -> None:
        self._desk = desk
        self.facts = facts
        self.order = order
        """Place in the order of arrival; kept through retries."""
        self.decision: Endpoint | Reject | None = None
        """`None` while waiting. Stays readable after the ticket is closed."""
        self.outcome: Outcome | None = None
        """How the stay ended; `None` while the ticket is open."""
        self.attempts = 0
        """Times it was placed."""
        self.excluded: frozenset[str] = frozenset()
        """Ids of endpoints that failed it."""
        self.waited_s = 0.0
        """Seconds spent in the queue so far, not counting a wait that still goes on."""
        self.queued_at = 0.0
        self.placed_at = 0.0
        self.notify: Notify | None = None

    @property
    def closed(self) -> bool:
        """Whether the stay has ended: nothing of the router is held any more."""
        return self.outcome is not None

    @property
    def endpoint(self) -> Endpoint | None:
        """The endpoint it is, or last was, placed on; `None` while waiting and when refused."""
        return self.decision if isinstance(self.decision, Endpoint) else None

    def cancel(self, now: float) -> None:
        """The client left: give back the queue place or the slot. Idempotent, in any state.

        A waiting ticket's decision becomes a `Reject` with outcome `CANCELLED` and status 499; its `notify`
        will not be called, not even when a decision was just made.
        """
        self._desk.cancel(self, now)

    @property
    def model(self) -> str:
        """The model id to ask the engine for."""
        return self.facts.model

    def settle(self, now: float, usage: Usage | None) -> None:
        """The request ended, well or not: give back the slot. `usage` is what it used, `None` if unknown.

        Idempotent. On a ticket that is still waiting it does what `cancel` does.
        """
        self._desk.settle(self, now, usage)

    def retry(self, now: float, notify: Notify) -> None:
        """The endpoint failed before the first byte reached the client: ask for another one.

        The slot is given back, the endpoint excluded, and the request keeps its place in the order of
        arrival. Afterwards read `decision` as after `admit`: another `Endpoint`, `None` while waiting
        (`notify` will be called once), or a `Reject` when no other endpoint is left or the attempts are used
        up. Does nothing unless the ticket is placed and open.
        """
        self._desk.retry(self, now, notify)
