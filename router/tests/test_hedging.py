"""When a second attempt is made, where, and what it leaves behind."""

from __future__ import annotations

from typing import Any

import pytest

from sluice_router.breaker import BreakerState
from sluice_router.hedging import ENOUGH, RARE, SOONEST_S, HedgeBudget, Lateness
from sluice_router.latency_model import MEASURED
from sluice_router.router import Router
from sluice_router.ticket import Ticket
from sluice_router.types import Endpoint, EngineLoad, FailureClass, HedgeResult, RequestFacts, Usage

TAUGHT = ENOUGH + 4 * MEASURED
PROMPT = 1000


def facts(**more: Any) -> RequestFacts:
    return RequestFacts(
        request_id="r",
        kind="chat",
        model="m",
        stream=True,
        repeatable=True,
        prompt_tokens_estimate=PROMPT,
        max_tokens=100,
        **more,
    )


class Fleet:
    """Two engines that answer after 0.3 s, one time in ten after 0.4, known to the router."""

    def __init__(self, *, taught: int = TAUGHT, **endpoint: Any) -> None:
        kept = {"hedging": True, "max_in_flight": 2} | endpoint
        self.router = Router(
            [Endpoint(id=i, backend="own", url=f"http://{i}", **kept) for i in "ab"],
            max_queue=10,
            queue_timeout_s=100.0,
        )
        self.now = 0.0
        for place in range(taught):
            ticket = self.ask()
            self.now += 0.4 if place % 10 == 0 else 0.3
            ticket.first_token(self.now)
            ticket.settle(self.now, Usage(prompt_tokens=PROMPT, completion_tokens=10))

    def ask(self, **more: Any) -> Ticket:
        return self.router.admit(facts(**more), self.now, lambda: None)

    def late(self, ticket: Ticket) -> Endpoint | None:
        """Time passes until the ticket is late, and it is hedged or not."""
        due_at = self.router.hedges.due_at(ticket, self.now)
        assert due_at is not None
        self.now = due_at
        return self.router.hedges.begin(ticket, self.now)

    def held(self) -> dict[str, int]:
        return {r.endpoint.id: r.in_flight for r in self.router.snapshot().replicas}

    def count(self, result: HedgeResult) -> int:
        return self.router.snapshot().hedges[result]


def other(ticket: Ticket) -> str:
    assert ticket.endpoint is not None
    return "b" if ticket.endpoint.id == "a" else "a"


def test_what_is_late_is_tried_elsewhere_and_the_first_token_decides() -> None:
    fleet = Fleet()
    ticket = fleet.ask()
    first = ticket.endpoint
    second = fleet.late(ticket)
    assert second is not None and second.id == other(ticket)
    assert fleet.held() == {"a": 1, "b": 1}
    fleet.router.hedges.won(ticket, fleet.now)
    ticket.first_token(fleet.now)
    assert ticket.endpoint == second != first
    assert fleet.held()[second.id] == 1 and fleet.held()[first.id] == 0  # type: ignore[union-attr]
    assert "reason=hedge," in ticket.route
    ticket.settle(fleet.now, Usage(prompt_tokens=PROMPT, completion_tokens=10))
    assert fleet.held() == {"a": 0, "b": 0}
    assert fleet.router.snapshot().outcomes["dispatched"] == TAUGHT + 1
    assert fleet.count(HedgeResult.WON) == 1


def test_a_first_token_of_the_first_one_gives_the_second_one_back() -> None:
    fleet = Fleet()
    ticket = fleet.ask()
    first = ticket.endpoint
    fleet.late(ticket)
    ticket.first_token(fleet.now)
    assert ticket.endpoint == first
    assert sum(fleet.held().values()) == 1
    assert fleet.count(HedgeResult.LOST) == 1


@pytest.mark.parametrize("failure", [FailureClass.BROKEN, FailureClass.FAULT, FailureClass.TIMEOUT])
def test_the_second_one_takes_over_when_the_first_one_fails(failure: FailureClass) -> None:
    fleet = Fleet()
    ticket = fleet.ask()
    second = fleet.late(ticket)
    ticket.retry(fleet.now, failure, lambda: None)
    assert ticket.endpoint == second
    assert fleet.router.snapshot().retries == 0
    assert sum(fleet.held().values()) == 1


@pytest.mark.parametrize("failure", [FailureClass.CALLER, FailureClass.CLIENT_GONE])
def test_what_is_not_the_engines_fault_ends_both(failure: FailureClass) -> None:
    fleet = Fleet()
    ticket = fleet.ask()
    fleet.late(ticket)
    ticket.retry(fleet.now, failure, lambda: None)
    assert ticket.closed
    assert fleet.held() == {"a": 0, "b": 0}
    assert all(r.failures == 0 for r in fleet.router.snapshot().replicas)


def test_an_attempt_that_lost_says_nothing_of_its_engine_but_how_late_it_was() -> None:
    fleet = Fleet()
    ticket = fleet.ask()
    assert ticket.endpoint is not None
    slow = fleet.router._replicas[ticket.endpoint.id]
    before = slow.predicted_ttft_s(PROMPT, fleet.now)
    fleet.late(ticket)
    fleet.now += 1.0
    fleet.router.hedges.won(ticket, fleet.now)
    assert (slow.breaker.state, slow.breaker.failures) == (BreakerState.CLOSED, 0)
    assert slow.avoid_until <= fleet.now
    after = slow.predicted_ttft_s(PROMPT, fleet.now)
    assert before is not None and after is not None and after > before


@pytest.mark.parametrize(
    "why", ["unknown", "not repeatable", "costs money", "answered", "closed", "hedged before"]
)
def test_never(why: str) -> None:
    fleet = Fleet(taught=20 if why == "unknown" else TAUGHT, hedging=why != "costs money")
    hedges, ticket = fleet.router.hedges, fleet.ask()
    if why == "not repeatable":
        ticket.settle(fleet.now, None)
        ticket = fleet.router.admit(RequestFacts(request_id="r", kind="chat", model="m"), 0.0, lambda: None)
    if why == "answered":
        ticket.first_token(fleet.now)
    if why == "closed":
        ticket.settle(fleet.now, None)
    if why == "hedged before":
        fleet.late(ticket)
        hedges.failed(ticket, FailureClass.BROKEN, fleet.now)
        assert fleet.count(HedgeResult.FAILED) == 1
    assert hedges.due_at(ticket, fleet.now) is None
    assert hedges.begin(ticket, fleet.now + 1000.0) is None


@pytest.mark.parametrize(
    "why", ["full", "waited for", "its cache is full", "suspended", "it has just failed"]
)
def test_nowhere(why: str) -> None:
    fleet = Fleet(max_in_flight=1 if why in ("full", "waited for") else 2)
    ticket = fleet.ask()
    there = other(ticket)
    if why in ("full", "waited for"):
        assert fleet.ask().endpoint is not None
    if why == "waited for":
        assert fleet.ask().decision is None
    if why == "its cache is full":
        fleet.router.record_load(there, EngineLoad(kv_used_ratio=0.75), fleet.now)
    if why == "suspended":
        fleet.router.force_breaker(there, BreakerState.OPEN, fleet.now)
    if why == "it has just failed":
        fleet.router._replicas[there].avoid_until = fleet.now + 100.0
    assert fleet.late(ticket) is None
    assert fleet.count(HedgeResult.NO_ROOM) == 1
    assert ticket.second is None


def test_not_where_it_would_take_longer_than_it_already_has() -> None:
    """An endpoint that is slow itself is no remedy."""
    fleet = Fleet()
    ticket = fleet.ask()
    there = fleet.router._replicas[other(ticket)]
    for _ in range(100):
        there.latency.learn_ttft(PROMPT, 0, 0, 30.0)
    assert fleet.late(ticket) is None


def test_a_retry_elsewhere_is_late_anew() -> None:
    fleet = Fleet()
    ticket = fleet.ask()
    due_at = fleet.router.hedges.due_at(ticket, fleet.now)
    fleet.now += 0.2
    ticket.retry(fleet.now, FailureClass.BROKEN, lambda: None)
    assert due_at is not None
    assert fleet.router.hedges.begin(ticket, due_at) is None, "that time was the first engine's"


def test_the_rest_of_an_answer_is_asked_for_once() -> None:
    fleet = Fleet()
    ticket = fleet.ask()
    second = fleet.late(ticket)
    assert second is not None
    ticket.resume(fleet.now, FailureClass.BROKEN, ticket.facts, lambda: None)
    assert ticket.second is None
    assert fleet.count(HedgeResult.LOST) == 1
    assert ticket.endpoint is not None and sum(fleet.held().values()) == 1
    assert "reason=resume,retry:2," in ticket.route
    assert fleet.router.hedges.due_at(ticket, fleet.now) is None
    fresh = fleet.ask()
    fresh.resume(fleet.now, FailureClass.BROKEN, fresh.facts, lambda: None)
    assert not fresh.hedged
    assert fleet.router.hedges.due_at(fresh, fleet.now) is None
    fleet.now += 100.0
    assert fleet.router.hedges.begin(fresh, fleet.now) is None


def test_a_second_attempt_that_won_may_be_resumed() -> None:
    fleet = Fleet()
    ticket = fleet.ask()
    first = ticket.endpoint
    fleet.late(ticket)
    fleet.router.hedges.won(ticket, fleet.now)
    ticket.first_token(fleet.now)
    ticket.resume(fleet.now + 1.0, FailureClass.BROKEN, ticket.facts, lambda: None)
    assert ticket.endpoint == first
    ticket.settle(fleet.now + 2.0, None)
    assert fleet.held() == {"a": 0, "b": 0}


def test_nobody_is_hedged_sooner_than_it_would_be_felt() -> None:
    lateness = Lateness(0.0)
    for _ in range(ENOUGH + 1):
        lateness.observe(0.001, 0.001, 0.0)
    assert lateness.patience_s(0.001, 0.0) == SOONEST_S


def test_of_first_tokens_as_before_few_are_late() -> None:
    lateness = Lateness(0.0)
    took = [0.5 + 0.01 * ((37 * place) % 200) for place in range(2000)]
    for seconds in took:
        lateness.observe(seconds, 1.0, 0.0)
    patience_s = lateness.patience_s(1.0, 0.0)
    assert patience_s is not None
    assert sum(seconds > patience_s for seconds in took) / len(took) <= RARE
    assert patience_s < 2 * max(took)


def test_the_budget_counts_requests_and_work() -> None:
    budget = HedgeBudget(0.1)
    for _ in range(10):
        budget.note_request(100, 0.0)
    assert not budget.withdraw(101, 0.0), "more work than a tenth of all"
    assert budget.withdraw(100, 0.0)
    assert not budget.withdraw(0, 0.0), "one in ten is used up"
