"""The router's tickets, as something to wait for.

The router is told the time and starts nothing by itself; this is the part that has an event loop: it waits
for a decision, wakes the router when a ticket expires or a breaker lets a probe pass, and gives a ticket back
when the wait is cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sluice_router.router import RECHECK_S
from sluice_router.routing import Routing
from sluice_router.ticket import Ticket
from sluice_router.types import Endpoint, FailureClass, RequestFacts, Usage


class Admission:
    """Waits for the router's decisions."""

    def __init__(self, router: Routing, clock: Callable[[], float]) -> None:
        """`clock` gives monotonic seconds; the router knows no other time."""
        self._router = router
        self._clock = clock
        self._timer: asyncio.TimerHandle | None = None

    async def admit(self, facts: RequestFacts) -> Ticket:
        """A decided ticket: an endpoint or a refusal. Cancelling the wait gives the queue place back."""
        decided = asyncio.Event()
        ticket = self._router.admit(facts, self._clock(), decided.set)
        if ticket.decision is None:
            await self._wait(ticket, decided)
        return ticket

    async def retry(self, ticket: Ticket, failure: FailureClass) -> None:
        """Report the failure of a placed ticket's endpoint, and have it decided anew without that endpoint.

        A refusal with outcome `EXHAUSTED` means that the failure stands.
        """
        decided = asyncio.Event()
        ticket.retry(self._clock(), failure, decided.set)
        self._rearm()
        if ticket.decision is None:
            await self._wait(ticket, decided)

    async def resume(self, ticket: Ticket, failure: FailureClass, facts: RequestFacts) -> None:
        """The same for an endpoint that failed amid its answer; `facts` are those of the rest."""
        decided = asyncio.Event()
        ticket.resume(self._clock(), failure, facts, decided.set)
        self._rearm()
        if ticket.decision is None:
            await self._wait(ticket, decided)

    def release(self, ticket: Ticket, usage: Usage | None, failure: FailureClass | None = None) -> None:
        """Give the ticket's slot or queue place back, and say how it went: `None` is well. Idempotent."""
        ticket.settle(self._clock(), usage, failure)
        if failure is not None:
            self._rearm()

    def first_token(self, ticket: Ticket) -> None:
        """Content has come: the router learns from how long it took, and need not wait for the end of a long
        answer where only the prompt was in the way."""
        ticket.first_token(self._clock())

    # Second attempts (`sluice_router/hedging.py`)

    def hedge_in(self, ticket: Ticket) -> float | None:
        """Seconds until a second attempt is worth asking for; `None`: never."""
        now = self._clock()
        due_at = self._router.hedges.due_at(ticket, now)
        return None if due_at is None else max(0.0, due_at - now)

    def hedge(self, ticket: Ticket) -> Endpoint | None:
        """Where to make it, now that this time has come; `None` for nowhere."""
        return self._router.hedges.begin(ticket, self._clock())

    def hedge_won(self, ticket: Ticket) -> None:
        """It has answered first: it is the ticket's own from here on."""
        self._router.hedges.won(ticket, self._clock())

    def hedge_failed(self, ticket: Ticket, failure: FailureClass) -> None:
        """It has failed; the first one goes on."""
        self._router.hedges.failed(ticket, failure, self._clock())
        self._rearm()

    async def _wait(self, ticket: Ticket, decided: asyncio.Event) -> None:
        self._arm()
        try:
            await decided.wait()
        except asyncio.CancelledError:
            ticket.cancel(self._clock())
            raise

    def _arm(self) -> None:
        """See that the router is called when it asks to be."""
        if self._timer is None:
            self._expire()

    def _rearm(self) -> None:
        """A failure may have opened a breaker, which makes the router ask to be called earlier."""
        if self._timer is not None:
            self._timer.cancel()
            self._expire()

    def _expire(self) -> None:
        now = self._clock()
        next_s = self._router.expire(now)
        loop = asyncio.get_running_loop()
        if next_s is None:
            self._timer = None
        else:
            wait_s = min(RECHECK_S, max(0.0, next_s - now))
            self._timer = loop.call_later(wait_s, self._expire)

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
