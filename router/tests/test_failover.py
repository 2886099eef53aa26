"""Stories of endpoints that fail, and of what that means for the next request."""

from __future__ import annotations

import pytest

from sluice_router.breaker import BreakerState
from sluice_router.failure import Failover
from sluice_router.router import Router
from sluice_router.ticket import Ticket
from sluice_router.types import Endpoint, FailureClass, Outcome, Reject, RequestFacts

FACTS = RequestFacts(request_id="r", kind="chat", model="tiny")
RETRIED = {
    FailureClass.UNREACHABLE,
    FailureClass.BROKEN,
    FailureClass.OVERLOADED,
    FailureClass.CREDENTIAL,
}
COUNTED = {
    FailureClass.UNREACHABLE,
    FailureClass.BROKEN,
    FailureClass.FAULT,
    FailureClass.CREDENTIAL,
    FailureClass.TIMEOUT,
}


def router(*names: str, max_in_flight: int = 8, **failover: float) -> Router:
    endpoints = [Endpoint(id=n, backend="b", url=f"http://{n}", max_in_flight=max_in_flight) for n in names]
    policy = Failover(**{"breaker_failures": 3, "breaker_open_s": 10.0, **failover})
    return Router(endpoints, max_queue=20, queue_timeout_s=30.0, failover=policy)


def nothing() -> None:
    """For tickets whose wait nobody awaits."""


def fail(r: Router, failure: FailureClass, now: float = 0.0) -> Ticket:
    ticket = r.admit(FACTS, now, nothing)
    ticket.settle(now, None, failure)
    return ticket


def states(r: Router) -> dict[str, BreakerState]:
    return {s.endpoint.id: s.breaker for s in r.snapshot().replicas}


def refusal(ticket: Ticket) -> Reject:
    assert isinstance(ticket.decision, Reject)
    return ticket.decision


# By class


@pytest.mark.parametrize("failure", list(FailureClass))
def test_the_class_decides_whether_another_endpoint_is_tried(failure):
    r = router("a", "b")
    ticket = r.admit(FACTS, 0.0, nothing)

    ticket.retry(0.0, failure, nothing)

    if failure in RETRIED:
        assert ticket.endpoint is not None
        assert ticket.endpoint.id == "b"
    else:
        assert refusal(ticket).outcome is Outcome.EXHAUSTED
    assert sum(s.in_flight for s in r.snapshot().replicas) == (failure in RETRIED)


@pytest.mark.parametrize("failure", list(FailureClass))
def test_the_class_decides_whether_the_breaker_opens(failure):
    r = router("a")

    for _ in range(3):
        fail(r, failure)

    assert states(r)["a"] is (BreakerState.OPEN if failure in COUNTED else BreakerState.CLOSED)


@pytest.mark.parametrize("failure", [FailureClass.CALLER, FailureClass.CLIENT_GONE])
def test_ten_thousand_bad_requests_or_impatient_clients_take_nothing_away_from_others(failure):
    r = router("a")

    for _ in range(10_000):
        fail(r, failure)

    assert r.admit(FACTS, 0.0, nothing).endpoint is not None


def test_a_client_that_leaves_while_it_is_served_does_not_count():
    r = router("a")

    for _ in range(100):
        r.admit(FACTS, 0.0, nothing).cancel(0.0)

    assert states(r)["a"] is BreakerState.CLOSED


def test_failures_that_are_repaired_elsewhere_count_as_well():
    r = router("a", "b")
    r.set_health("b", False, 0.0)
    tickets = [r.admit(FACTS, 0.0, nothing) for _ in range(3)]
    r.set_health("b", True, 0.0)

    for ticket in tickets:
        ticket.retry(0.0, FailureClass.BROKEN, nothing)

    assert states(r) == {"a": BreakerState.OPEN, "b": BreakerState.CLOSED}
    assert [t.endpoint.id for t in tickets] == ["b"] * 3


@pytest.mark.parametrize("session", [None, "s"])
def test_an_overloaded_endpoint_is_left_alone_for_a_moment(session):
    r = router("a", "b")
    first = r.admit(FACTS, 0.0, nothing)
    first.retry(0.0, FailureClass.OVERLOADED, nothing)

    same = RequestFacts(request_id="r", kind="chat", model="tiny", session=session)
    soon = [r.admit(same, 0.5, nothing).endpoint.id for _ in range(3)]
    later = r.admit(FACTS, 1.0, nothing)

    assert soon == ["b"] * 3
    assert later.endpoint.id == "a"
    assert states(r)["a"] is BreakerState.CLOSED


def test_an_endpoint_that_has_just_failed_is_better_than_waiting():
    r = router("a")

    fail(r, FailureClass.OVERLOADED)

    assert r.admit(FACTS, 0.0, nothing).endpoint is not None


# An open breaker


def test_an_endpoint_with_an_open_breaker_gets_nothing_while_another_is_well():
    r = router("a", "b")
    r.set_health("b", False, 0.0)
    for _ in range(3):
        fail(r, FailureClass.BROKEN)
    r.set_health("b", True, 0.0)

    assert {r.admit(FACTS, 1.0, nothing).endpoint.id for _ in range(5)} == {"b"}


def test_when_all_are_open_the_refusal_says_when_the_first_will_be_tried_again():
    r = router("a", "b")
    for now, name in ((0.0, "a"), (4.0, "b")):
        other = "b" if name == "a" else "a"
        r.set_draining(other, True, now)
        for _ in range(3):
            fail(r, FailureClass.FAULT, now)
        r.set_draining(other, False, now)

    found = refusal(r.admit(FACTS, 6.0, nothing))

    assert (found.outcome, found.status, found.retry_after_s) == (Outcome.NO_ENDPOINT, 503, 4.0)
    assert "suspended" in found.message


def test_a_client_that_comes_back_when_told_is_the_probe():
    r = router("a")
    for _ in range(3):
        fail(r, FailureClass.FAULT)
    told = refusal(r.admit(FACTS, 2.0, nothing)).retry_after_s

    probe = r.admit(FACTS, 2.0 + told, nothing)
    second = r.admit(FACTS, 2.0 + told, nothing)

    assert probe.endpoint is not None
    assert second.decision is None, "it waits for the verdict"
    probe.settle(13.0, None)
    assert second.endpoint is not None
    assert states(r)["a"] is BreakerState.CLOSED


def test_when_the_probe_fails_those_who_waited_for_it_are_refused():
    r, rung = router("a"), []
    for _ in range(3):
        fail(r, FailureClass.FAULT)
    probe = r.admit(FACTS, 10.0, nothing)
    waiting = r.admit(FACTS, 10.0, lambda: rung.append(True))

    probe.settle(11.0, None, FailureClass.TIMEOUT)

    assert refusal(waiting).retry_after_s == 20.0, "twice as long as the first time"
    assert rung == [True]


def test_a_probe_whose_client_leaves_hands_its_turn_on():
    r = router("a")
    for _ in range(3):
        fail(r, FailureClass.FAULT)
    probe = r.admit(FACTS, 10.0, nothing)
    waiting = r.admit(FACTS, 10.0, nothing)

    probe.cancel(11.0)

    assert waiting.endpoint is not None
    assert states(r)["a"] is BreakerState.HALF_OPEN


def test_the_first_content_of_a_long_probe_lets_the_others_in():
    r = router("a")
    for _ in range(3):
        fail(r, FailureClass.FAULT)
    probe = r.admit(FACTS, 10.0, nothing)
    waiting = r.admit(FACTS, 10.0, nothing)

    probe.answered(11.0)

    assert waiting.endpoint is not None


def test_streams_that_die_in_the_middle_open_the_breaker():
    r = router("a")

    for _ in range(3):
        ticket = r.admit(FACTS, 0.0, nothing)
        ticket.answered(0.0)
        ticket.settle(0.0, None, FailureClass.BROKEN)

    assert states(r)["a"] is BreakerState.OPEN


def test_those_who_wait_for_another_endpoint_take_the_one_that_may_be_tried_again():
    r, rung = router("a", "b", max_in_flight=1), []
    r.set_draining("b", True, 0.0)
    for _ in range(3):
        fail(r, FailureClass.FAULT)
    r.set_draining("b", False, 0.0)
    r.admit(FACTS, 1.0, nothing)
    waiting = r.admit(FACTS, 1.0, lambda: rung.append(True))

    assert r.expire(1.0) == 10.0
    r.expire(10.0)

    assert waiting.endpoint is not None
    assert waiting.endpoint.id == "a"
    assert rung == [True]


def test_a_healthy_probe_brings_the_trial_forward():
    r = router("a")
    for _ in range(3):
        fail(r, FailureClass.UNREACHABLE)
    r.set_health("a", False, 1.0)

    r.set_health("a", True, 2.0)

    assert states(r)["a"] is BreakerState.HALF_OPEN


# The budget


def test_when_every_engine_fails_only_a_share_of_the_requests_is_retried():
    r = router("a", "b", retry_ratio=0.1, retry_floor=2.0)

    outcomes = []
    for i in range(1000):
        ticket = r.admit(FACTS, i * 0.001, nothing)
        ticket.retry(i * 0.001, FailureClass.OVERLOADED, nothing)
        outcomes.append(ticket.outcome)
        ticket.settle(i * 0.001, None, FailureClass.OVERLOADED)

    assert 95 <= outcomes.count(None) <= 105
    assert r.snapshot().retries == outcomes.count(None)
    assert outcomes.count(Outcome.EXHAUSTED) == 1000 - outcomes.count(None)


def test_what_has_nowhere_to_go_costs_no_budget():
    r = router("a", "b", retry_ratio=0.0, retry_floor=1.0)
    r.set_draining("b", True, 0.0)
    r.admit(FACTS, 0.0, nothing).retry(0.0, FailureClass.BROKEN, nothing)
    r.set_draining("b", False, 0.0)

    ticket = r.admit(FACTS, 0.0, nothing)
    ticket.retry(0.0, FailureClass.BROKEN, nothing)

    assert ticket.endpoint is not None


# By hand


def test_a_drained_endpoint_ends_what_it_has_and_gets_nothing_new():
    r = router("a", "b")
    running = r.admit(FACTS, 0.0, nothing)

    r.set_draining("a", True, 0.0)

    assert {r.admit(FACTS, 0.0, nothing).endpoint.id for _ in range(4)} == {"b"}
    assert not running.closed
    running.settle(1.0, None)
    r.set_draining("a", False, 2.0)
    assert r.admit(FACTS, 2.0, nothing).endpoint.id == "a"


def test_a_breaker_can_be_held_open_and_closed_and_be_let_go():
    r = router("a")

    r.force_breaker("a", BreakerState.OPEN, 0.0)
    assert refusal(r.admit(FACTS, 0.0, nothing)).status == 503
    r.force_breaker("a", BreakerState.CLOSED, 0.0)
    for _ in range(10):
        fail(r, FailureClass.FAULT)
    assert r.admit(FACTS, 0.0, nothing).endpoint is not None
    r.force_breaker("a", None, 0.0)
    for _ in range(3):
        fail(r, FailureClass.FAULT)

    assert states(r)["a"] is BreakerState.OPEN
    assert not r.snapshot().replicas[0].breaker_forced


@pytest.mark.parametrize("failure", list(FailureClass))
def test_a_breaker_opens_for_what_the_endpoint_did_and_for_nothing_else(failure: FailureClass) -> None:
    router = Router(
        [Endpoint(id="a", backend="a", url="http://a")],
        max_queue=10,
        queue_timeout_s=10.0,
        failover=Failover(breaker_failures=3),
    )
    for _ in range(3):
        ticket = router.admit(RequestFacts(request_id="r", kind="chat", model="m"), 0.0, lambda: None)
        ticket.settle(0.0, None, failure)
    (replica,) = router.snapshot().replicas
    innocent = {
        FailureClass.CALLER,
        FailureClass.CLIENT_GONE,
        FailureClass.OVERLOADED,
        FailureClass.GATEWAY,
    }
    assert (replica.breaker is BreakerState.CLOSED) is (failure in innocent), failure
