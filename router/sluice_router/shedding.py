"""Whether a request that has to wait is worth the wait, and when one that is refused should come back.

Refused is what, by measurements, would get its first token later than its class, or its client, has patience
for: serving it late costs the same as serving another in time, and brings nobody anything. Nothing is refused
on a guess: see `forecast.py` for how many measurements each term rests on. The patience is the class's
budget; where an idle engine would need more than that for this prompt, it is `STRETCH` times that need,
unless the client named the budget itself. What came when it was told to (`return_times.py`) is let in up to
`KEPT_WORD` times its patience.

Does not place, and changes nothing but the times it told.
"""

from __future__ import annotations

from collections.abc import Callable

from sluice_router import priority, refusals
from sluice_router.admission_policy import STRETCH, AdmissionPolicy
from sluice_router.forecast import Capacity, Forecasts
from sluice_router.plan import Step
from sluice_router.replica import Replica
from sluice_router.return_times import ReturnTimes
from sluice_router.shelf import Lane
from sluice_router.snapshot import ReturnsSnapshot
from sluice_router.ticket import Ticket
from sluice_router.types import Reject
from sluice_router.waiting_room import WaitingRoom

KEPT_WORD = 1.5


class Shedding:
    """The refusals for lack of time."""

    __slots__ = (
        "_deadlines_s",
        "_forecasts",
        "_policy",
        "_queue_timeout_s",
        "_recovery_s",
        "_returns",
        "_room",
    )

    def __init__(
        self,
        policy: AdmissionPolicy,
        room: WaitingRoom,
        random: Callable[[], float],
        *,
        queue_timeout_s: float,
        recovery_s: float,
    ) -> None:
        """`queue_timeout_s` is told for a wait that nobody can foresee, `recovery_s` where nothing is usable;
        `random`: see `ReturnTimes`."""
        self._policy = policy
        self._deadlines_s = tuple(policy.deadlines_s[name] for name in priority.BANDS)
        self._room = room
        self._forecasts = Forecasts()
        self._returns = ReturnTimes(random)
        self._queue_timeout_s = queue_timeout_s
        self._recovery_s = recovery_s

    def came_back(self, ticket: Ticket, now: float) -> bool:
        """Whether a newcomer was told to come about now. To be asked once."""
        return len(self._returns) > 0 and self._returns.redeem(ticket.facts, now)

    def hopeless(self, ticket: Ticket, step: Step, now: float) -> Reject | None:
        """A refusal, if the client named a budget that no endpoint can meet, even where it is placed now."""
        budget_s = ticket.facts.ttft_budget_s
        if budget_s is None:
            return None
        shortest: float | None = None
        for replica in step.members:
            if not replica.usable:
                continue
            ttft_s = replica.predicted_ttft_s(ticket.cost.prompt_tokens, now)
            if ttft_s is None:
                return None
            if shortest is None or ttft_s < shortest:
                shortest = ttft_s
        if shortest is None or shortest <= budget_s:
            return None
        return refusals.out_of_reach(budget_s, shortest, self._told(ticket, step, shortest - budget_s, now))

    def too_late(self, ticket: Ticket, step: Step, now: float) -> Reject | None:
        """A refusal, if the ticket would wait longer than it has patience for."""
        capacity = self._capacity(step, now)
        patience_s = self.patience_s(ticket, step, now)
        if not capacity.measured:
            return None
        home = step.members[0] if ticket.home is not None else None
        if home is not None and home.shared:
            wait_s: float | None = home.room_in_s(now, home.waiting_tokens)
        else:
            wait_s = self._wait_s(ticket, step, capacity, now)
        if wait_s is None:
            return None
        limit_s = self._limit_s(ticket, patience_s, capacity.slack)
        excess_s = wait_s + capacity.placed_s(ticket.new_tokens, now) - limit_s
        if excess_s <= 0.0:
            return None
        return refusals.too_late(patience_s, self._told(ticket, step, excess_s, now))

    def patience_s(self, ticket: Ticket, step: Step, now: float) -> float:
        """Seconds from the ticket's arrival within which its first token is worth having."""
        if ticket.patience_s is None:
            budget_s = self._policy.ttft_budget_s(ticket.facts)
            if ticket.facts.ttft_budget_s is None:
                bare_s = self._capacity(step, now).bare_s(ticket.cost, now)
                budget_s = max(budget_s, STRETCH * bare_s)
            ticket.patience_s = budget_s
        return ticket.patience_s

    def overdue(self, ticket: Ticket, replica: Replica, now: float) -> bool:
        """Whether a ticket whose turn it is would get its first token too late all the same."""
        patience_s = ticket.patience_s
        if patience_s is None:
            return False
        ttft_s = replica.predicted_ttft_s(ticket.new_tokens, now)
        limit_s = self._limit_s(ticket, patience_s, 1.0)
        return ttft_s is not None and now + ttft_s > ticket.arrived_at + limit_s

    def may_have_lost_patience(self, ticket: Ticket, now: float) -> bool:
        """Whether a waiting ticket's time is over, if `is_measured` holds for what it waits for."""
        patience_s = ticket.patience_s
        return patience_s is not None and now > ticket.arrived_at + self._limit_s(ticket, patience_s, 1.0)

    def is_measured(self, step: Step, now: float) -> bool:
        """Whether enough was seen of the endpoints to refuse on it."""
        return self._capacity(step, now).measured

    def _limit_s(self, ticket: Ticket, patience_s: float, slack: float) -> float:
        return patience_s * (KEPT_WORD if ticket.came_back else slack)

    def missed(self, ticket: Ticket, step: Step | None, now: float) -> Reject:
        """The refusal of a ticket that has waited in vain."""
        return refusals.too_late(ticket.patience_s or 0.0, self.retry_after_s(ticket, step, now))

    def retry_after_s(self, ticket: Ticket, step: Step | None, now: float) -> float:
        """Seconds after which all that waits now, and this, would have had its turn."""
        if step is None:
            return self._recovery_s
        band = priority.BANDS["bulk"]
        work = self._room.work_ahead(step.lane, band) + ticket.cost.work
        wait_s = self._capacity(step, now).wait_s(work)
        return self._told(ticket, step, self._queue_timeout_s if wait_s is None else wait_s, now)

    def returns(self, now: float) -> ReturnsSnapshot:
        """Who was told to come back, and is expected."""
        return self._returns.snapshot(now)

    def forget(self) -> None:
        """An endpoint has come or gone: what was summed up over endpoints is out of date."""
        self._forecasts.forget()

    def _wait_s(self, ticket: Ticket, step: Step, capacity: Capacity, now: float) -> float | None:
        """Seconds until an endpoint would have room for it.

        More urgent classes come first for as long as their deadlines are earlier, and not longer. Of its own
        class all come first who wait, and all who were told to come back; but no more than its tenant's fair
        part of the drain leaves to others while what its tenant has there is served.
        """
        lane, facts = step.lane, ticket.facts
        band = priority.BANDS[facts.priority]
        own_s = capacity.wait_s(ticket.cost.work)
        if own_s is None:
            return None
        urgent_s = self._urgent_s(lane, band, capacity)
        wait_s = urgent_s + own_s + (capacity.wait_s(self._room.work_of_class(lane, band)) or 0.0)
        if not ticket.came_back:
            wait_s = max(wait_s, self._returns.reserved_s(lane, now) + own_s)
        rivals = self._room.rivals(ticket, lane)
        promised_s = self._returns.promised_s(lane, facts.tenant)
        if self._returns.promised_s(lane) > promised_s:
            rivals += 1.0
        if rivals == facts.weight:
            return wait_s
        mine_s = own_s + promised_s + (capacity.wait_s(self._room.work_of_tenant(ticket, lane)) or 0.0)
        return min(wait_s, urgent_s + mine_s * rivals / facts.weight)

    def _urgent_s(self, lane: Lane, band: int, capacity: Capacity) -> float:
        """Seconds for which more urgent classes come first."""
        total_s = 0.0
        for other in range(band):
            work_s = capacity.wait_s(self._room.work_of_class(lane, other)) or 0.0
            total_s += min(work_s, self._deadlines_s[band] - self._deadlines_s[other])
        return total_s

    def _told(self, ticket: Ticket, step: Step, wait_s: float, now: float) -> float:
        own_s = self._capacity(step, now).wait_s(ticket.cost.work) or 0.0
        return self._returns.tell(ticket.facts, step.lane, wait_s, own_s, now)

    def _capacity(self, step: Step, now: float) -> Capacity:
        return self._forecasts.capacity(step.members, step.lane, now)
