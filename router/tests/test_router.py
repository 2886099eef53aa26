"""Stories of requests that meet each other in the router."""

from __future__ import annotations

import pytest

from sluice_router.failure import Failover
from sluice_router.router import Router
from sluice_router.types import (
    Capabilities,
    Endpoint,
    EngineLoad,
    FailureClass,
    Outcome,
    Reject,
    RequestFacts,
    Usage,
)

BROKEN = FailureClass.BROKEN


def endpoint(name: str, **changes: object) -> Endpoint:
    return Endpoint(
        **{"id": name, "backend": "worker", "url": f"http://{name}", "max_in_flight": 1, **changes}
    )


def facts(**changes: object) -> RequestFacts:
    return RequestFacts(**{"request_id": "r", "kind": "chat", "model": "tiny", **changes})


def router(*endpoints: Endpoint, max_queue: int = 10, queue_timeout_s: float = 30.0) -> Router:
    return Router(endpoints, max_queue=max_queue, queue_timeout_s=queue_timeout_s, random=lambda: 0.0)


class Bell:
    """Counts how often it was rung."""

    def __init__(self) -> None:
        self.rung = 0

    def __call__(self) -> None:
        self.rung += 1


def placed_on(ticket) -> str | None:
    return ticket.endpoint.id if ticket.endpoint else None


def refused(ticket) -> Reject:
    assert isinstance(ticket.decision, Reject)
    return ticket.decision


# Admission


def test_a_free_endpoint_takes_the_request_at_once_and_nobody_is_notified():
    bell = Bell()

    ticket = router(endpoint("a")).admit(facts(), 0.0, bell)

    assert placed_on(ticket) == "a"
    assert not ticket.closed
    assert bell.rung == 0


def test_a_full_endpoint_makes_the_next_request_wait_until_a_slot_is_settled():
    r, bell = router(endpoint("a")), Bell()
    first = r.admit(facts(), 0.0, Bell())
    second = r.admit(facts(), 1.0, bell)
    assert second.decision is None

    first.settle(4.0, Usage(prompt_tokens=3, completion_tokens=5))

    assert placed_on(second) == "a"
    assert bell.rung == 1
    assert second.waited_s == 3.0
    assert first.outcome is Outcome.DISPATCHED


def test_a_full_queue_sheds_with_429_and_says_when_to_come_back():
    r = router(endpoint("a"), max_queue=1)
    r.admit(facts(), 0.0, Bell()).settle(4.0, None)
    r.admit(facts(), 10.0, Bell())
    r.admit(facts(), 10.0, Bell())

    shed = refused(r.admit(facts(), 10.0, Bell()))

    assert (shed.outcome, shed.status) == (Outcome.SHED_CAPACITY, 429)
    assert shed.retry_after_s == 8.0, "one waits before it, and a request takes four seconds"


def test_retry_after_falls_when_the_engine_is_seen_to_drain_faster():
    slow, fast = router(endpoint("a"), max_queue=0), router(endpoint("a"), max_queue=0)
    for r, service_s in ((slow, 40.0), (fast, 2.0)):
        r.admit(facts(), 0.0, Bell()).settle(service_s, None)
        r.admit(facts(), 50.0, Bell())

    waits = [refused(r.admit(facts(), 50.0, Bell())).retry_after_s for r in (slow, fast)]

    assert waits == [40.0, 2.0]


def test_retry_after_is_the_queue_timeout_while_nothing_has_been_observed():
    r = router(endpoint("a"), max_queue=0, queue_timeout_s=12.5)
    r.admit(facts(), 0.0, Bell())

    assert refused(r.admit(facts(), 0.0, Bell())).retry_after_s == 12.5


def test_two_endpoints_with_one_id_are_a_configuration_error():
    with pytest.raises(ValueError, match="unique"):
        router(endpoint("a"), endpoint("a"))


# Order


def test_equal_requests_are_served_in_the_order_of_arrival():
    r = router(endpoint("a"))
    tickets = [r.admit(facts(), float(i), Bell()) for i in range(4)]

    running = []
    for now, ticket in enumerate(tickets, start=10):
        running.append([placed_on(t) for t in tickets if not t.closed])
        ticket.settle(float(now), None)

    assert running == [["a", None, None, None], ["a", None, None], ["a", None], ["a"]]


def test_a_request_for_a_full_backend_does_not_block_one_for_a_free_backend():
    r = router(endpoint("a"), endpoint("b", backend="other"))
    r.admit(facts(backend="worker"), 0.0, Bell())
    waiting = r.admit(facts(backend="worker"), 0.0, Bell())

    other = r.admit(facts(backend="other"), 0.0, Bell())

    assert waiting.decision is None
    assert placed_on(other) == "b"


def test_a_freed_slot_goes_past_older_requests_that_cannot_use_it():
    r = router(endpoint("a"), endpoint("b", backend="other"))
    r.admit(facts(backend="worker"), 0.0, Bell())
    on_other = r.admit(facts(backend="other"), 0.0, Bell())
    older = r.admit(facts(backend="worker"), 0.0, Bell())
    younger = r.admit(facts(backend="other"), 0.0, Bell())

    on_other.settle(1.0, None)

    assert older.decision is None
    assert placed_on(younger) == "b"


def test_requests_from_different_lanes_share_an_endpoint_by_age():
    r = router(endpoint("a"))
    running = r.admit(facts(), 0.0, Bell())
    pinned = r.admit(facts(backend="worker"), 1.0, Bell())
    free_choice = r.admit(facts(), 2.0, Bell())

    running.settle(3.0, None)
    assert placed_on(pinned) == "a"
    pinned.settle(4.0, None)
    assert placed_on(free_choice) == "a"


# Leaving


def test_a_client_that_leaves_the_queue_makes_room_in_it():
    r, bell = router(endpoint("a"), max_queue=1), Bell()
    running = r.admit(facts(), 0.0, Bell())
    waiting = r.admit(facts(), 0.0, bell)

    waiting.cancel(2.0)
    replacement = r.admit(facts(), 2.0, Bell())
    running.settle(3.0, None)

    assert refused(waiting).outcome is Outcome.CANCELLED
    assert bell.rung == 0
    assert placed_on(replacement) == "a"


def test_a_client_that_leaves_while_running_hands_its_slot_on():
    r = router(endpoint("a"))
    running = r.admit(facts(), 0.0, Bell())
    waiting = r.admit(facts(), 0.0, Bell())

    running.cancel(1.0)

    assert placed_on(waiting) == "a"


def test_closing_a_ticket_again_in_any_way_changes_nothing():
    r = router(endpoint("a", max_in_flight=2))
    first, second = r.admit(facts(), 0.0, Bell()), r.admit(facts(), 0.0, Bell())
    first.settle(1.0, Usage(completion_tokens=7))

    first.settle(2.0, Usage(completion_tokens=7))
    first.cancel(2.0)
    first.retry(2.0, BROKEN, Bell())

    (replica,) = r.snapshot().replicas
    assert replica.in_flight == 1
    assert replica.usage.completion_tokens == 7
    assert placed_on(second) == "a"


def test_settling_a_ticket_that_still_waits_takes_it_out_of_the_queue():
    r = router(endpoint("a"))
    r.admit(facts(), 0.0, Bell())
    waiting = r.admit(facts(), 0.0, Bell())

    waiting.settle(1.0, None)

    assert waiting.outcome is Outcome.CANCELLED
    assert r.snapshot().waiting == 0


def test_a_callback_may_cancel_another_ticket_that_was_decided_in_the_same_call():
    r, bell = router(endpoint("a", max_in_flight=2)), Bell()
    running = [r.admit(facts(), 0.0, Bell()) for _ in range(2)]
    r.admit(facts(), 0.0, lambda: second.cancel(1.0))
    second = r.admit(facts(), 0.0, bell)
    r.set_health("a", False, 1.0)

    assert second.closed
    assert bell.rung == 0, "its owner had already left"
    assert [t.closed for t in running] == [False, False]


# Waiting too long


def test_expire_refuses_those_that_waited_too_long_and_returns_the_next_time():
    r, bell = router(endpoint("a"), queue_timeout_s=10.0), Bell()
    r.admit(facts(), 0.0, Bell())
    early, late = r.admit(facts(), 1.0, bell), r.admit(facts(), 5.0, Bell())
    assert r.expire(10.9) == 11.0

    assert r.expire(11.0) == 15.0

    assert (refused(early).outcome, refused(early).status) == (Outcome.EXPIRED, 503)
    assert refused(early).retry_after_s is not None
    assert bell.rung == 1
    assert late.decision is None
    assert r.expire(15.0) is None


# Health


def test_without_a_healthy_endpoint_requests_are_refused_at_once():
    r = router(endpoint("a"))
    r.set_health("a", False, 0.0)

    refusal = refused(r.admit(facts(), 0.0, Bell()))

    assert (refusal.outcome, refusal.status) == (Outcome.NO_ENDPOINT, 503)
    assert refusal.retry_after_s == 5.0


def test_waiting_requests_are_refused_when_their_last_endpoint_falls_ill():
    r, bell = router(endpoint("a"), endpoint("b", backend="other")), Bell()
    running = r.admit(facts(backend="worker"), 0.0, Bell())
    waiting = r.admit(facts(backend="worker"), 0.0, bell)

    r.set_health("a", False, 1.0)

    assert refused(waiting).outcome is Outcome.NO_ENDPOINT
    assert bell.rung == 1
    assert placed_on(running) == "a", "what runs may still finish"


def test_a_recovered_endpoint_takes_waiting_requests():
    r = router(endpoint("a"), endpoint("b", max_in_flight=2))
    r.set_health("b", False, 0.0)
    r.admit(facts(), 0.0, Bell())
    waiting = [r.admit(facts(), 0.0, Bell()) for _ in range(3)]

    r.set_health("b", True, 1.0)

    assert [placed_on(t) for t in waiting] == ["b", "b", None]


# Failover


def test_a_failed_request_goes_to_another_endpoint_at_once():
    r, bell = router(endpoint("a"), endpoint("b")), Bell()
    ticket = r.admit(facts(), 0.0, Bell())

    ticket.retry(1.0, BROKEN, bell)

    assert placed_on(ticket) == "b"
    assert bell.rung == 0
    assert [s.in_flight for s in r.snapshot().replicas] == [0, 1]


def test_a_retried_request_keeps_its_place_in_the_order_of_arrival():
    r, bell = router(endpoint("a"), endpoint("b")), Bell()
    failing, other = r.admit(facts(), 0.0, Bell()), r.admit(facts(), 0.0, Bell())
    younger = [r.admit(facts(), 1.0, Bell()) for _ in range(2)]

    failing.retry(2.0, BROKEN, bell)
    assert failing.decision is None
    assert placed_on(younger[0]) == "a", "the slot it gave back is of no use to itself"
    other.settle(3.0, None)

    assert placed_on(failing) == "b"
    assert bell.rung == 1
    assert younger[1].decision is None


def test_retries_end_when_every_endpoint_has_failed():
    r = router(endpoint("a"), endpoint("b"))
    ticket = r.admit(facts(), 0.0, Bell())

    ticket.retry(1.0, BROKEN, Bell())
    ticket.retry(2.0, BROKEN, Bell())

    assert refused(ticket).outcome is Outcome.EXHAUSTED
    assert "2 times" in refused(ticket).message
    assert sum(s.in_flight for s in r.snapshot().replicas) == 0


def test_retries_end_when_the_attempts_are_used_up():
    r = Router(
        [endpoint(n) for n in "abcd"], max_queue=1, queue_timeout_s=1.0, failover=Failover(max_attempts=2)
    )
    ticket = r.admit(facts(), 0.0, Bell())

    ticket.retry(1.0, BROKEN, Bell())
    assert placed_on(ticket) == "b"
    ticket.retry(2.0, BROKEN, Bell())

    assert refused(ticket).status == 503


def test_a_retried_request_is_not_shed_by_a_full_queue():
    r = router(endpoint("a"), endpoint("b"), max_queue=1)
    failing, _other = r.admit(facts(), 0.0, Bell()), r.admit(facts(), 0.0, Bell())
    r.admit(facts(backend="worker"), 0.0, Bell())

    failing.retry(1.0, BROKEN, Bell())

    assert failing.decision is None


# Models and load


def test_discovered_models_open_an_endpoint_to_requests_that_wait():
    r = router(endpoint("a", models=("tiny",)), endpoint("b", models=("big",)))
    r.admit(facts(), 0.0, Bell())
    waiting = r.admit(facts(), 0.0, Bell())
    assert waiting.decision is None

    r.set_models("b", ["big", "tiny"], 1.0)

    assert placed_on(waiting) == "b"
    assert r.models() == ("tiny", "big")


def test_a_model_that_disappears_refuses_those_who_wait_for_it():
    r = router(endpoint("a", models=("tiny",)))
    r.admit(facts(), 0.0, Bell())
    waiting = r.admit(facts(), 0.0, Bell())

    r.set_models("a", ["big"], 1.0)

    assert "'tiny' is not served" in refused(waiting).message
    assert refused(waiting).retry_after_s is None, "waiting would not help"


def test_a_discovered_quantization_opens_an_endpoint_to_requests_that_wait():
    r = router(endpoint("a", quant="int8"), endpoint("b"))
    r.admit(facts(quant="int8"), 0.0, Bell())
    waiting = r.admit(facts(quant="int8"), 0.0, Bell())
    assert waiting.decision is None

    r.set_quant("b", "int8", 1.0)

    assert placed_on(waiting) == "b"
    assert "not served" in refused(r.admit(facts(quant="none"), 1.0, Bell())).message


def test_requests_avoid_the_endpoint_that_reports_a_queue():
    r = router(endpoint("a", max_in_flight=8), endpoint("b", max_in_flight=8))
    r.record_load("a", EngineLoad(running=8, waiting=4), 0.0)

    assert [placed_on(r.admit(facts(), 1.0, Bell())) for _ in range(3)] == ["b", "b", "b"]


def test_an_old_reading_does_not_count():
    r = router(endpoint("a", max_in_flight=8), endpoint("b", max_in_flight=8))
    r.record_load("a", EngineLoad(running=8, waiting=4), 0.0)

    assert placed_on(r.admit(facts(), 60.0, Bell())) == "a"


def test_endpoints_equally_loaded_take_turns():
    r = router(endpoint("a"), endpoint("b"), endpoint("c"))

    turns = []
    for now in range(6):
        ticket = r.admit(facts(), float(now), Bell())
        turns.append(placed_on(ticket))
        ticket.settle(float(now), None)

    assert turns == ["a", "b", "c", "a", "b", "c"]


# What the gateway tells users


def test_backends_and_models_name_what_may_be_asked_for():
    r = router(
        endpoint("a", models=("tiny",)), endpoint("b", models=("tiny", "big")), endpoint("c", backend="echo")
    )

    assert r.backends() == ("worker", "echo")
    assert r.models() == ("tiny", "big")
    assert r.models("echo") == ()


def test_mismatch_is_none_for_what_could_be_served_once_healthy():
    r = router(endpoint("a"))
    r.set_health("a", False, 0.0)

    assert r.mismatch(facts()) is None
    lacking = r.mismatch(facts(needs=frozenset({"images"})))
    assert lacking is not None
    assert lacking.field == "needs"


def test_an_unservable_request_is_refused_with_the_reason():
    r = router(endpoint("a", capabilities=Capabilities(endpoints=frozenset({"chat"}))))

    refusal = refused(r.admit(facts(kind="embeddings"), 0.0, Bell()))

    assert refusal.outcome is Outcome.NO_ENDPOINT
    assert "embeddings" in refusal.message


def test_what_is_remembered_about_model_names_is_bounded():
    r = router(endpoint("a", max_in_flight=10_000))

    for i in range(3000):
        r.admit(facts(model=f"made-up-{i}"), 0.0, Bell())

    assert len(r._placer._planner._memo) <= 1024
