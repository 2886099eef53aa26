"""Who waits, who is let out of the queue, and who is refused; each decision is told once.

Invariants, between any two calls of the router:

- whoever waits waits for the first target that has a usable endpoint, and each usable endpoint of it either
  does not take him (`Replica.takes`) or is waited for by somebody whose turn comes before; or he waits for
  one of them only, where his prompt's beginning is, because he was expected to be served sooner there;
- `_held` has every endpoint with a free slot that somebody waits for: it is not enough for whose turn it is.

Nobody who needs little overtakes one who needs much at an endpoint that both wait for, or large requests
would starve. When the one who was waited for leaves, the endpoints that were held are filled again; that is
all that has to be looked at, however many endpoints there are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping

from sluice_router import priority, refusals
from sluice_router.admission_policy import AdmissionPolicy
from sluice_router.placer import Placer, covers
from sluice_router.plan import Step
from sluice_router.replica import Replica
from sluice_router.shedding import Shedding
from sluice_router.shelf import Lane
from sluice_router.ticket import Ticket
from sluice_router.types import Outcome, Reject
from sluice_router.waiting_room import WaitingRoom

LOOKED_AT = 16
"""Of those that wait, so many are asked once in a while whether another endpoint has become better."""
LONG_S = 5.0
_NOBODY: Lane = frozenset()


class Dispatcher:
    """The queue with its two doors."""

    __slots__ = (
        "_classes",
        "_decided",
        "_held",
        "_placer",
        "_replicas",
        "_slots",
        "outcomes",
        "room",
        "shedding",
    )

    def __init__(
        self,
        replicas: Mapping[str, Replica],
        placer: Placer,
        policy: AdmissionPolicy,
        random: Callable[[], float],
        *,
        max_queue: int,
        queue_timeout_s: float,
        recovery_s: float,
    ) -> None:
        """See `Router`."""
        self._replicas = replicas
        self._placer = placer
        self._classes = priority.classes(queue_timeout_s, policy.deadlines_s)
        self._slots = sum(r.endpoint.max_in_flight for r in replicas.values())
        self.room = WaitingRoom(
            max_queue, policy.max_queue_tokens, policy.max_queue_bytes, self._classes.deadlines_s
        )
        self.shedding = Shedding(
            policy, self.room, random, queue_timeout_s=queue_timeout_s, recovery_s=recovery_s
        )
        self._held: set[str] = set()
        self._decided: deque[Ticket] = deque()
        self.outcomes = dict.fromkeys(Outcome, 0)
        """Closed tickets, by how."""

    # At the entrance

    def admit(self, ticket: Ticket, now: float) -> None:
        """Place, refuse, or let wait who has just come."""
        ticket.came_back = self.shedding.came_back(ticket, now)
        step = self._placer.step(ticket)
        if step is None:
            self.close(ticket, self._placer.unservable(ticket, now))
        elif (hopeless := self.shedding.hopeless(ticket, step, now)) is not None:
            self.close(ticket, hopeless)
        elif not self._place(ticket, step, now):
            self._wait_or_shed(ticket, self._placer.waits_for(ticket, step), now)

    def readmit(self, ticket: Ticket, now: float) -> None:
        """The same for one whose endpoint failed. It was admitted before: the queue may be longer for it, by
        as many as fit in flight."""
        step = self._placer.step(ticket)
        if step is None:
            self.close(ticket, self._placer.unservable(ticket, now))
            return
        if self._place(ticket, step, now):
            return
        step = self._placer.waits_for(ticket, step)
        if self.room.has_room(ticket, self._slots):
            self._enqueue(ticket, step, now)
        else:
            self.close(ticket, refusals.shed(self.shedding.retry_after_s(ticket, step, now)))

    def withdraw(self, ticket: Ticket, now: float, reject: Reject) -> None:
        """Somebody who waits has left."""
        self._leave(ticket, now)
        self.close(ticket, reject)
        self.fill_held(now)

    def close(self, ticket: Ticket, reject: Reject) -> None:
        """Refuse; who waits has to be taken out of the queue first."""
        ticket.decision = reject
        ticket.outcome = reject.outcome
        self.outcomes[reject.outcome] += 1

    def _place(self, ticket: Ticket, step: Step, now: float, *, again: bool = False) -> bool:
        """Place a newcomer where nobody waits."""
        claimed = self.room.claimed() if len(self.room) else _NOBODY
        return self._place_beside(ticket, step, claimed, now, again=again)

    def _place_beside(
        self, ticket: Ticket, step: Step, claimed: Lane, now: float, *, again: bool = False
    ) -> bool:
        if not self._placer.place(ticket, step, claimed, now, again=again):
            return False
        assert ticket.endpoint is not None
        self.room.charge(ticket, step.lane, ticket.endpoint.id)
        return True

    def _wait_or_shed(self, ticket: Ticket, step: Step, now: float) -> None:
        """Its target is full: wait; or, if there is no room or no time for that, be served by a lesser
        target, take less urgent requests' places, or be refused."""
        full = not self.room.has_room(ticket)
        late = None if full else self.shedding.too_late(ticket, step, now)
        if full or late is not None:
            home, new_tokens = ticket.home, ticket.new_tokens
            steps = self._placer.steps(ticket.facts)
            if any(self._place(ticket, later, now) for later in steps if later.target != step.target):
                return
            ticket.home, ticket.new_tokens = home, new_tokens
            if late is None and not self._displace(ticket, now):
                late = refusals.shed(self.shedding.retry_after_s(ticket, step, now))
        if late is None:
            self._enqueue(ticket, step, now)
        else:
            self.close(ticket, late)
        if full:
            self.fill_held(now)

    def _displace(self, ticket: Ticket, now: float) -> bool:
        """Make room in the queue by refusing less urgent requests, the last of them first. False, with
        nobody refused, when that would not do."""
        weaker = self.room.to_displace(ticket)
        for other in weaker:
            again_s = self.shedding.retry_after_s(other, self._step_of(other), now)
            self._refuse_waiting(other, now, refusals.displaced(again_s))
        return len(weaker) > 0

    def _enqueue(self, ticket: Ticket, step: Step, now: float) -> None:
        self.shedding.patience_s(ticket, step, now)
        if not covers(self.room.claimed(), step.lane):  # else they are held already
            self._held.update([r.endpoint.id for r in step.members if r.available])
        limit_s = self._classes.limit_s(ticket.facts.priority)
        self.room.enter(ticket, step.lane, now + limit_s, now)
        self._note_home(ticket, 1)
        if self._held and self.room.leads(ticket) and (free := self._held & step.lane):
            self._held -= free
            self._fill_all(sorted(free), now)

    # At the exit

    def fill(self, replica: Replica, now: float) -> None:
        """Give the replica's free slots to those who come first among those who wait for it."""
        self._placer.reopened(replica)
        if len(self.room):
            self._fill_all([replica.endpoint.id], now)

    def fill_held(self, now: float) -> None:
        """Somebody who was waited for has left, or time has passed: there may be room for others."""
        held, self._held = self._held, set()
        self._fill_all(sorted(held), now)

    def refuse_late(self, now: float) -> None:
        """Refuse those whose time in the queue is over, or whose patience."""
        for ticket in self.room.expired(now):
            again_s = self.shedding.retry_after_s(ticket, self._step_of(ticket), now)
            limit_s = self._classes.limit_s(ticket.facts.priority)
            self._refuse_waiting(ticket, now, refusals.timed_out(limit_s, again_s))
        for ticket in list(self.room):
            if self.shedding.may_have_lost_patience(ticket, now):
                step = self._step_of(ticket)
                if step is not None and self.shedding.is_measured(step, now):
                    self._refuse_waiting(ticket, now, self.shedding.missed(ticket, step, now))
        for ticket in self.room.oldest(LOOKED_AT):
            self._look_again(ticket, now)
        self.fill_held(now)

    def _look_again(self, ticket: Ticket, now: float) -> None:
        """Have one who has waited for one endpoint for long, and half of its patience, go elsewhere, if that
        has become better. Not sooner: in an overload all would be computed where they are not cached."""
        if ticket.home is None:
            return
        if now - ticket.arrived_at < max(LONG_S, (ticket.patience_s or 0.0) / 2):
            return
        step = self._placer.step(ticket)
        if step is None:
            return
        self._note_home(ticket, -1)
        if self._place(ticket, step, now, again=True):
            self.room.leave(ticket, now)
            self._decided.append(ticket)
            return
        self._note_home(ticket, 1)
        self.room.move(ticket, self._placer.waits_for(ticket, step).lane)

    def reconsider(self, now: float) -> None:
        """Endpoints have become usable or unusable: have everybody wait for the first target that is now
        worth it, run, or be refused."""
        self.shedding.forget()
        for replica in self._replicas.values():
            self._placer.reopened(replica)
        for ticket in list(self.room):
            step = self._placer.step(ticket)
            if step is None:
                self._refuse_waiting(ticket, now, self._placer.unservable(ticket, now))
            else:
                if ticket.home is not None and not self._may_stay(ticket, step):
                    self._note_home(ticket, -1)
                    ticket.home, ticket.new_tokens = None, ticket.cost.prompt_tokens
                self.room.move(ticket, self._placer.waits_for(ticket, step).lane)
        self._fill_all(list(self._replicas), now)

    def _may_stay(self, ticket: Ticket, step: Step) -> bool:
        """Whether the endpoint that it waits for is still one of those that could serve it."""
        home = ticket.home
        return home is not None and home in step.lane and self._replicas[home].usable

    def announce(self) -> None:
        """Call the callbacks of tickets decided meanwhile, each once, unless cancelled in between."""
        while self._decided:
            ticket = self._decided.popleft()
            if ticket.decision is not None and (notify := ticket.notify) is not None:
                ticket.notify = None
                notify()

    def _fill_all(self, pending: list[str], now: float) -> None:
        """Fill these endpoints, and those that were held for whoever leaves the queue by it."""
        while pending and len(self.room):
            left = self._serve_first(self._replicas[pending[-1]], now)
            if left is None:
                pending.pop()
            elif self._held and (free := self._held & left):
                self._held -= free
                pending.extend(sorted(free))

    def _serve_first(self, replica: Replica, now: float) -> Lane | None:
        """Place, or refuse, who comes first for the endpoint. What he waited for; `None` when nobody can be
        served there now."""
        if not replica.available:
            return None
        ticket = self.room.first_for(replica.endpoint.id, now)
        if ticket is None:
            return None
        self._placer.reopened(replica)
        step = self._step_of(ticket)
        if step is not None and replica.takes(ticket.cost, now):
            if self.shedding.overdue(ticket, replica, now):
                self._refuse_waiting(ticket, now, self.shedding.missed(ticket, step, now))
                return ticket.lane
            if self._place_waiting(ticket, step, replica, now):
                self._leave(ticket, now)
                self._decided.append(ticket)
                return ticket.lane
        self._held.add(replica.endpoint.id)
        return None

    def _place_waiting(self, ticket: Ticket, step: Step, replica: Replica, now: float) -> bool:
        """Place who comes first for the endpoint: there, or where it is best if he could be anywhere."""
        if not ticket.facts.prefix:
            claimed = self.room.claimed(ticket) - {replica.endpoint.id}
            return self._place_beside(ticket, step, claimed, now)
        self._placer.place_at(ticket, step, replica, now)
        self.room.charge(ticket, step.lane, replica.endpoint.id)
        return True

    def _leave(self, ticket: Ticket, now: float) -> None:
        self.room.leave(ticket, now)
        self._note_home(ticket, -1)

    def _note_home(self, ticket: Ticket, sign: int) -> None:
        """A ticket begins to wait for one endpoint, or stops."""
        if ticket.home is not None:
            replica = self._replicas[ticket.home]
            replica.waiting += sign
            replica.waiting_tokens += sign * ticket.new_tokens
            replica.waiting_work += sign * ticket.cost.work

    def _step_of(self, ticket: Ticket) -> Step | None:
        """What a ticket waits for; `None` when nothing of it is usable."""
        step = self._placer.step(ticket)
        return None if step is None else self._placer.waits_for(ticket, step)

    def _refuse_waiting(self, ticket: Ticket, now: float, reject: Reject) -> None:
        self._leave(ticket, now)
        self.close(ticket, reject)
        self._decided.append(ticket)
