"""One request's stay in the router: waiting, placed on an endpoint, or refused; closed exactly once.

    admit ──► waiting ──► placed ──► closed (DISPATCHED)
                 │  ▲        │
                 │  └─ retry ┴──► refused: closed (EXHAUSTED)
                 └──► refused or cancelled: closed (SHED_*, NO_ENDPOINT, EXPIRED, CANCELLED)

The ticket is a handle: its verbs ask the router, which changes the fields. Whoever got a ticket must close it
with `settle` or `cancel`; both may be called at any time and any number of times, only the first has an
effect.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Protocol
from urllib.parse import quote

from sluice_router.cost import Cost
from sluice_router.queue import Charge
from sluice_router.scoring import Score
from sluice_router.second_attempt import SecondAttempt
from sluice_router.shelf import Lane, Place
from sluice_router.types import Endpoint, FailureClass, Outcome, Reject, RequestFacts, Usage
from sluice_router.work_ledger import Lease

Notify = Callable[[], None]
"""Called without arguments when a waiting ticket gets its decision. Must not raise; may call the router."""

_PLAIN = "/:@+"
"""Punctuation of model names that needs no escaping in a header."""


class Desk(Protocol):
    """What a ticket asks of the router that issued it."""

    def cancel(self, ticket: Ticket, now: float) -> None:
        """See `Ticket.cancel`."""
        ...

    def settle(self, ticket: Ticket, now: float, usage: Usage | None, failure: FailureClass | None) -> None:
        """See `Ticket.settle`."""
        ...

    def retry(self, ticket: Ticket, now: float, failure: FailureClass, notify: Notify) -> None:
        """See `Ticket.retry`."""
        ...

    def resume(
        self, ticket: Ticket, now: float, failure: FailureClass, facts: RequestFacts, notify: Notify
    ) -> None:
        """See `Ticket.resume`."""
        ...

    def answered(self, ticket: Ticket, now: float) -> None:
        """See `Ticket.first_token`."""
        ...


class Ticket:
    """A request that was handed to the router."""

    __slots__ = (
        "_desk",
        "arrived_at",
        "attempts",
        "came_back",
        "charge",
        "choice",
        "computed",
        "cost",
        "decision",
        "excluded",
        "facts",
        "hedged",
        "hit_tokens",
        "home",
        "lane",
        "late_at",
        "lease",
        "model",
        "new_tokens",
        "notify",
        "outcome",
        "patience_s",
        "permit",
        "place",
        "queued_at",
        "reason",
        "relaxed",
        "resumed",
        "scores",
        "second",
        "waited_s",
    )

    def __init__(self, desk: Desk, facts: RequestFacts, place: Place, cost: Cost, arrived_at: float) -> None:
        self._desk = desk
        self.facts = facts
        self.cost = cost
        """What it is expected to need; what its queue places and shares are charged with is `cost.work`."""
        self.arrived_at = arrived_at
        self.place = place
        """Place among those that wait: deadline, and order of arrival. Kept through retries."""
        self.charge: Charge | None = None
        """What its tenant is charged with, while that is an estimate."""
        self.decision: Endpoint | Reject | None = None
        """`None` while waiting. Stays readable after the ticket is closed."""
        self.outcome: Outcome | None = None
        """How the stay ended; `None` while the ticket is open."""
        self.model = facts.model
        """The model id to ask the engine for; differs from `facts.model` when that is an alias."""
        self.reason = ""
        """Why this endpoint of those that could: see `placement.Pick`."""
        self.scores: tuple[Score, ...] = ()
        """What the candidates were found to be, when its prompt or session decided."""
        self.hit_tokens = 0
        """Prompt tokens that the endpoint's cache was expected to have."""
        self.computed = False
        """Its prompt is known to be in the endpoint's cache."""
        self.choice = 0
        """Index of the alias's choice that it was placed by."""
        self.relaxed = False
        """It was placed without something that the client preferred."""
        self.attempts = 0
        """Times it was placed."""
        self.excluded: frozenset[str] = frozenset()
        """Ids of endpoints that failed it."""
        self.waited_s = 0.0
        """Seconds spent in the queue so far, not counting a wait that still goes on."""
        self.queued_at = 0.0
        self.patience_s: float | None = None
        """Seconds from arrival to the first token after which it is not worth serving; `None` until it has
        to wait."""
        self.resumed = False
        """Only the rest of its answer is asked for: an endpoint failed amid it."""
        self.came_back = False
        """It was refused before, and comes at the time that it was told."""
        self.lane: Lane = frozenset()
        """Ids of the endpoints it waits for, or waited for last."""
        self.home: str | None = None
        """The id of the one endpoint that it waits for, because its prompt's beginning is there; `None` when
        it waits for whoever has room."""
        self.new_tokens = cost.prompt_tokens
        """Prompt tokens to compute where it waits."""
        self.lease: Lease | None = None
        """What it holds, or held last, of its endpoint."""
        self.permit = 0
        """What the endpoint's breaker let it pass with."""
        self.notify: Notify | None = None
        self.late_at: float | None = None
        """When its first token is late, as was told when it was placed; `None`: never."""
        self.hedged = False
        """A second attempt was made, whatever became of it."""
        self.second: SecondAttempt | None = None
        """The one that is under way beside the placement."""

    @property
    def closed(self) -> bool:
        """Whether the stay has ended: nothing of the router is held any more."""
        return self.outcome is not None

    def reopen(self, failed: str) -> None:
        """The router's: the endpoint called `failed` is left out, and the decision is to be made anew."""
        self.decision = self.late_at = None
        self.computed = False
        self.excluded |= {failed}

    def go_on(self, facts: RequestFacts, cost: Cost, now: float) -> None:
        """The router's: from here on only the rest of the answer is asked for. Its client has been served
        until now, so that its patience begins anew; its place in the order stays."""
        self.facts, self.cost = facts, cost
        self.resumed = True
        self.arrived_at, self.patience_s, self.came_back = now, None, False

    def hand_to(self, desk: Desk) -> None:
        """The router's: from here on the ticket's verbs ask `desk`, which asks the router."""
        self._desk = desk

    @property
    def endpoint(self) -> Endpoint | None:
        """The endpoint it is, or last was, placed on; `None` while waiting and when refused."""
        return self.decision if isinstance(self.decision, Endpoint) else None

    @property
    def route(self) -> str:
        """The placement in a few words, as a header's value; empty while there is none.

        `model=tiny; backend=worker; endpoint=worker-0; reason=retry:2,fallback:1,least_loaded`. Model names
        come from clients: what could end a header, or the field, is percent-encoded.
        """
        endpoint = self.endpoint
        if endpoint is None:
            return ""
        model = _quoted(self.model)
        return f"model={model}; backend={endpoint.backend}; endpoint={endpoint.id}; reason={self._reasons()}"

    def _reasons(self) -> str:
        reasons = self.reason
        if self.relaxed:
            reasons = f"relaxed,{reasons}"
        if self.choice:
            reasons = f"fallback:{self.choice},{reasons}"
        if self.attempts > 1:
            reasons = f"retry:{self.attempts},{reasons}"
        if self.resumed:
            reasons = f"resume,{reasons}"
        return reasons

    def cancel(self, now: float) -> None:
        """The client left: give back the queue place or the slot. Idempotent, in any state.

        A waiting ticket's decision becomes a `Reject` with outcome `CANCELLED` and status 499; its `notify`
        will not be called, not even when a decision was just made.
        """
        self._desk.cancel(self, now)

    def settle(self, now: float, usage: Usage | None, failure: FailureClass | None = None) -> None:
        """The request ended: give back the slot.

        `usage` is what it used, `None` if unknown. `failure` says what went wrong; `None` says that all went
        well, which clears the endpoint's record, so a client that left is a `CLIENT_GONE`, not a `None`.
        Idempotent. On a ticket that is still waiting it does what `cancel` does.
        """
        self._desk.settle(self, now, usage, failure)

    def first_token(self, now: float) -> None:
        """Content has come from the endpoint, though the end has not.

        Optional, and only the first call on an endpoint counts: its prompt is computed, which is learned
        from and makes room for another, and an endpoint on probation may serve others before a long answer
        ends. Does nothing unless the ticket is placed and open.
        """
        self._desk.answered(self, now)

    def answered(self, now: float) -> None:
        """Another word for `first_token`."""
        self._desk.answered(self, now)

    def retry(self, now: float, failure: FailureClass, notify: Notify) -> None:
        """The endpoint failed before the first byte reached the client: ask for another one.

        The slot is given back, the endpoint excluded, and the request keeps its place in the order of
        arrival. Afterwards read `decision` as after `admit`: another `Endpoint`, `None` while waiting
        (`notify` will be called once), or a `Reject`. One with outcome `EXHAUSTED` means that the failure
        stands: its class is not retried, no other endpoint is left, or the attempts or the budget of retries
        are used up. Does nothing unless the ticket is placed and open.
        """
        self._desk.retry(self, now, failure, notify)

    def resume(self, now: float, failure: FailureClass, facts: RequestFacts, notify: Notify) -> None:
        """The same for an endpoint that failed amid its answer: another one is to go on, and what the rest
        asks of it is `facts` (`resumption.py`). Budget and attempts are those of retries. The rest is never
        hedged, and nothing is learned from what the whole has used: no endpoint has done all of it."""
        self._desk.resume(self, now, failure, facts, notify)


@lru_cache(maxsize=1024)
def _quoted(model: str) -> str:
    return quote(model[:128], safe=_PLAIN, errors="replace")
