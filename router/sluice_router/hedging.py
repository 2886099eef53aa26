"""A second attempt on another endpoint, when the first one has given no token for longer than it should.

Rule: once a request has waited for its first token as long as all but `RARE` of the recent ones did, in
proportion to what was predicted for each, a second attempt is made elsewhere; the first token of the two
decides, and the other attempt is given up at once. What is not streamed shows no first token: the same rule
then holds for the whole answer, and what was predicted for it.

Invariants:

- a request has two attempts at most at one time, and is hedged once; both hold a lease until they end, and
  the ticket's own placement is always the one that answers, or may;
- hedges begun == won + lost + failed + left + under way;
- with `n` requests admitted, no more than `SHARE * n` second attempts are made, and their expected work is no
  more than `SHARE` of the expected work of all, whatever the order of events;
- a second attempt takes only what nobody waits for: an endpoint with room at once, whose breaker is closed,
  whose KV cache is not nearly full, and where the first token is expected within the time already waited;
- only what may be computed twice (`RequestFacts.repeatable`) is, and only by endpoints that cost nothing but
  their time (`Endpoint.hedging`).

So it is rare by construction where engines are even, and stops by itself where all are late: then nobody has
room, or the distribution has moved. A first attempt that was given up late teaches that its endpoint takes at
least so long. Does not know how an attempt is cancelled: that is the caller's. Source: Dean and Barroso, *The
Tail at Scale*, 2013; the time is in proportion to a prediction because prompts differ a thousandfold.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import exp

from sluice_router import failure as failures
from sluice_router.breaker import BreakerState
from sluice_router.dispatcher import Dispatcher
from sluice_router.placer import Placer
from sluice_router.replica import Replica
from sluice_router.second_attempt import SecondAttempt
from sluice_router.suspensions import Suspensions
from sluice_router.ticket import Ticket
from sluice_router.token_histogram import TokenHistogram
from sluice_router.types import Endpoint, FailureClass, HedgeResult
from sluice_router.work_ledger import Lease

SHARE = 0.02
"""Second attempts, of the requests, and of their work."""
WINDOW_S = 300.0
"""How long a request counts: the time constant of an exponential decay."""
RARE = 0.02
"""Share of the first tokens that are later, in proportion to their prediction, than a hedge waits."""
ENOUGH = 50
"""First tokens of a backend that this share has to be told from."""
SOONEST_S = 0.25
"""Nobody feels a shorter wait, see `concurrency_limit.py`."""
FULLEST = 0.7
"""KV use of the other endpoint above which it is left alone."""
HALF_LIFE_S = 600.0
_PER_TIME, _PER_S = 64.0, 256.0
"""Scales, so that a histogram of whole numbers has its buckets, two to the doubling, where they lie;"""
_MOST_TIMES, _MOST_EXCESS_S = 500.0, 120.0
"""and its last ones."""
_RENEWED_EVERY = 16
"""Observations between two looks at the distribution."""
_EDGE = 1e-9


class HedgeBudget:
    """Decaying sums of the requests and of the hedges, by number and by work."""

    __slots__ = ("_at", "_hedged", "_hedged_work", "_requests", "_share", "_work")

    def __init__(self, share: float) -> None:
        self._share = share
        self._at = 0.0
        self._requests = self._work = 0.0
        self._hedged = self._hedged_work = 0.0

    def note_request(self, work: int, now: float) -> None:
        """A request came in that is expected to be so much work."""
        self._decay(now)
        self._requests += 1.0
        self._work += float(work)

    def withdraw(self, work: int, now: float) -> bool:
        """Take one second attempt; False, and nothing taken, when there is none left."""
        self._decay(now)
        if self._hedged + 1.0 > self._share * self._requests + _EDGE:
            return False
        if self._hedged_work + work > self._share * self._work + _EDGE:
            return False
        self._hedged += 1.0
        self._hedged_work += float(work)
        return True

    def _decay(self, now: float) -> None:
        elapsed_s = now - self._at
        if elapsed_s > 0.0:
            kept = exp(-elapsed_s / WINDOW_S)
            self._requests *= kept
            self._work *= kept
            self._hedged *= kept
            self._hedged_work *= kept
            self._at = now


class Lateness:
    """How late first tokens were: their time over what was predicted, and beyond it.

    Short prompts are late by a multiple of next to nothing, long ones by little of much: of the two limits
    that follow the lower one holds, each passed by half of `RARE`.
    """

    __slots__ = ("_beyond", "_excess_s", "_looked", "_over", "_ratio", "_seen")

    def __init__(self, now: float) -> None:
        self._over = TokenHistogram(HALF_LIFE_S, now)
        self._beyond = TokenHistogram(HALF_LIFE_S, now)
        self._ratio = 0.0
        self._excess_s = 0.0
        self._seen = 0
        self._looked = 0

    def observe(self, took_s: float, expected_s: float, now: float) -> None:
        """A first token came, or had not come yet."""
        ratio = min(took_s / max(expected_s, _EDGE), _MOST_TIMES)
        excess_s = min(max(0.0, took_s - expected_s), _MOST_EXCESS_S)
        self._over.observe(round(ratio * _PER_TIME), now)
        self._beyond.observe(round(excess_s * _PER_S), now)
        self._seen += 1

    def patience_s(self, expected_s: float, now: float) -> float | None:
        """How long to wait for a first token that was expected after so long; `None` while too few were
        seen."""
        if self._seen >= self._looked + _RENEWED_EVERY or self._ratio <= 0.0:
            self._looked = self._seen
            self._ratio = 0.0
            if self._over.observations(now) >= ENOUGH:
                self._ratio = max(1.0, self._over.quantile(1.0 - RARE / 2.0) / _PER_TIME)
                self._excess_s = self._beyond.quantile(1.0 - RARE / 2.0) / _PER_S
        if self._ratio <= 0.0:
            return None
        return max(SOONEST_S, min(self._ratio * expected_s, expected_s + self._excess_s))


class Hedges:
    """The second attempts of one router's requests. Its caller asks `due_at` when a request has been placed,
    `begin` when that time has come, and tells which attempt has answered first, or failed."""

    __slots__ = (
        "_budget",
        "_dispatcher",
        "_lateness",
        "_placer",
        "_possible",
        "_replicas",
        "_suspensions",
        "counts",
    )

    def __init__(
        self,
        replicas: Mapping[str, Replica],
        placer: Placer,
        dispatcher: Dispatcher,
        suspensions: Suspensions,
        share: float,
    ) -> None:
        """All but `share` are the router's own; see `Router` for that."""
        self._replicas = replicas
        self._placer = placer
        self._dispatcher = dispatcher
        self._suspensions = suspensions
        self._budget = HedgeBudget(share)
        self._lateness: dict[tuple[str, bool], Lateness] = {}
        """By backend, and whether answers are streamed."""
        self._possible = share > 0.0 and sum(r.endpoint.hedging for r in replicas.values()) > 1
        self.counts = dict.fromkeys(HedgeResult, 0)

    def admitted(self, ticket: Ticket, now: float) -> None:
        """A request came in."""
        if self._possible:
            self._budget.note_request(ticket.cost.work, now)

    def answered(self, ticket: Ticket, replica: Replica, now: float, *, streamed: bool) -> None:
        """The first token of the ticket's own attempt has come, or all of an answer that is not streamed. A
        second one is given up."""
        self.drop(ticket, HedgeResult.LOST, now)
        lease = ticket.lease
        if not self._possible or lease is None or streamed is not ticket.facts.stream:
            return
        expected_s = _expected_s(replica, lease, streamed=streamed)
        if expected_s is not None:
            self._lateness_of(replica, streamed, now).observe(now - lease.placed_at, expected_s, now)

    def due_at(self, ticket: Ticket, now: float) -> float | None:
        """When a second attempt is worth asking for, if nothing has come by then; `None`: never."""
        endpoint, lease = ticket.endpoint, ticket.lease
        ticket.late_at = None
        if not self._possible or endpoint is None or lease is None or ticket.closed or ticket.hedged:
            return None
        if not endpoint.hedging or not ticket.facts.repeatable or lease.first_token_at is not None:
            return None
        if ticket.resumed:
            return None
        replica, streamed = self._replicas[endpoint.id], ticket.facts.stream
        expected_s = _expected_s(replica, lease, streamed=streamed)
        if expected_s is None:
            return None
        patience_s = self._lateness_of(replica, streamed, now).patience_s(expected_s, now)
        if patience_s is not None:
            ticket.late_at = lease.placed_at + patience_s
        return ticket.late_at

    def begin(self, ticket: Ticket, now: float) -> Endpoint | None:
        """The time has come, and nothing else: where to make a second attempt; `None` for nowhere."""
        self._suspensions.pass_time(now)
        second = self._place(ticket, now) if _is_late(ticket, now) else None
        self._dispatcher.announce()
        return None if second is None else second.endpoint

    def _place(self, ticket: Ticket, now: float) -> SecondAttempt | None:
        first, step = ticket.endpoint, self._placer.step(ticket)
        if first is None or ticket.lease is None or step is None or not self._placer.is_of(ticket, step):
            return self._none(HedgeResult.NO_ROOM)
        room = self._dispatcher.room
        busy = ticket.excluded | {first.id}
        if len(room):
            busy |= room.claimed()
        pick = self._placer.choose(ticket, step, busy, now)
        if pick is None or not self._is_free(pick.replica, ticket, pick.hit_tokens, now):
            return self._none(HedgeResult.NO_ROOM)
        if not self._budget.withdraw(ticket.cost.work, now):
            return self._none(HedgeResult.NO_BUDGET)
        ticket.hedged = True
        ticket.second = self._placer.place_second(ticket, step, pick, now)
        return ticket.second

    def _is_free(self, replica: Replica, ticket: Ticket, hit_tokens: int, now: float) -> bool:
        """Whether the other endpoint is to be used, and is expected to be quick."""
        if not replica.endpoint.hedging or now < replica.avoid_until:
            return False
        if replica.breaker.state is not BreakerState.CLOSED:
            return False
        used = replica.kv_used_ratio(now)
        if used is not None and used >= FULLEST:
            return False
        assert ticket.lease is not None
        expected_s = replica.predicted_ttft_s(ticket.cost.prompt_tokens - hit_tokens, now)
        if expected_s is not None and not ticket.facts.stream:
            itl_s = replica.latency.itl_s(replica.running(now) + 1.0)
            expected_s = None if itl_s is None else expected_s + itl_s * ticket.cost.output_tokens
        return expected_s is not None and expected_s <= now - ticket.lease.placed_at

    def _none(self, why: HedgeResult) -> SecondAttempt | None:
        self.counts[why] += 1
        return None

    # How it ends

    def won(self, ticket: Ticket, now: float) -> None:
        """The second attempt has answered first: it is the ticket's own from here on, and the first one is
        given up. Does nothing without a second attempt."""
        first, lease = ticket.endpoint, ticket.lease
        if ticket.second is None or first is None or lease is None:
            return
        self._suspensions.pass_time(now)
        replica = self._replicas[first.id]
        streamed = ticket.facts.stream
        expected_s = _expected_s(replica, lease, streamed=streamed)
        if expected_s is not None:
            self._lateness_of(replica, streamed, now).observe(now - lease.placed_at, expected_s, now)
        if streamed:
            replica.overdue(lease, now)
        self._give_back(replica, lease, ticket.permit, now)
        self._dispatcher.room.settle(ticket, 0)
        self.take_over(ticket)
        self._dispatcher.fill(replica, now)
        self._dispatcher.announce()

    def failed(self, ticket: Ticket, failure: FailureClass, now: float) -> None:
        """The second attempt has failed; the first goes on. Does nothing without a second attempt."""
        second = ticket.second
        if second is None:
            return
        self._suspensions.pass_time(now)
        ticket.second = None
        replica = self._replicas[second.endpoint.id]
        replica.vacate(second.lease)
        self._suspensions.record(replica, second.permit, failure, now)
        self.counts[HedgeResult.FAILED] += 1
        self._dispatcher.fill(replica, now)
        self._dispatcher.announce()

    def rescues(self, ticket: Ticket, failure: FailureClass, now: float) -> bool:
        """The ticket's own attempt has failed, and has been given back: whether the second one takes over. It
        is given up when the request itself is at fault, or its client has left."""
        if ticket.second is None:
            return False
        if failures.is_the_endpoints(failure):
            self.take_over(ticket)
            return True
        self.drop(ticket, HedgeResult.LOST, now)
        return False

    def take_over(self, ticket: Ticket) -> None:
        """Make the second attempt the ticket's own, whose lease has been given back."""
        second = ticket.second
        assert second is not None
        ticket.second = None
        ticket.decision, ticket.lease, ticket.permit = second.endpoint, second.lease, second.permit
        ticket.hit_tokens, ticket.scores = second.hit_tokens, second.scores
        ticket.reason = f"hedge,{second.reason}"
        ticket.computed = False
        self._dispatcher.room.charge(ticket, second.lane, second.endpoint.id)
        self.counts[HedgeResult.WON] += 1

    def drop(self, ticket: Ticket, result: HedgeResult, now: float) -> None:
        """Give the second attempt up, if there is one; it says nothing of its endpoint."""
        second = ticket.second
        if second is None:
            return
        ticket.second = None
        self.counts[result] += 1
        replica = self._replicas[second.endpoint.id]
        self._give_back(replica, second.lease, second.permit, now)
        self._dispatcher.fill(replica, now)

    def _give_back(self, replica: Replica, lease: Lease, permit: int, now: float) -> None:
        replica.vacate(lease)
        self._suspensions.record(replica, permit, FailureClass.CLIENT_GONE, now)

    def _lateness_of(self, replica: Replica, streamed: bool, now: float) -> Lateness:
        key = replica.endpoint.backend, streamed
        found = self._lateness.get(key)
        if found is None:
            found = self._lateness[key] = Lateness(now)
        return found


def _is_late(ticket: Ticket, now: float) -> bool:
    lease, late_at = ticket.lease, ticket.late_at
    if ticket.closed or ticket.hedged or ticket.decision is None or lease is None or late_at is None:
        return False
    return lease.first_token_at is None and now >= late_at - _EDGE


def _expected_s(replica: Replica, lease: Lease, *, streamed: bool) -> float | None:
    """Seconds from placement to the first token, or to the end of an answer that is not streamed; `None`
    while that is not measured."""
    expected_s = replica.latency.ttft_s(lease.new_tokens, lease.ahead_tokens, lease.batch)
    if streamed or expected_s is None:
        return expected_s
    itl_s = replica.latency.itl_s(lease.batch + 1.0)
    return None if itl_s is None else expected_s + itl_s * lease.output_tokens
