"""Who is let in, who is told to come back, and when: by what was measured, and by nothing else."""

from __future__ import annotations

import pytest
from measured_router import OUTPUT, TOKENS, facts, learned, nothing, refused, router, run

from sluice_router.admission_policy import AdmissionPolicy, slack
from sluice_router.failure import Failover
from sluice_router.latency_model import MEASURED
from sluice_router.router import Router
from sluice_router.types import Endpoint, EngineLoad, FailureClass, Outcome, Usage

# Refusing what would come too late


def test_who_would_wait_longer_than_its_class_may_is_refused_at_once_and_told_when_to_come():
    r = learned("a", size=1)
    r.admit(facts(), 0.0, nothing)

    shed = refused(r.admit(facts(priority="interactive"), 0.0, nothing))

    # Two seconds until the one before it has left, one for its own prompt, two allowed.
    assert (shed.outcome, shed.status) == (Outcome.SHED_DEADLINE, 429)
    assert shed.retry_after_s == pytest.approx(1.0, abs=0.3)
    assert "Retry-After" in shed.message and "X-Priority" in shed.message


@pytest.mark.parametrize(("priority", "waits"), [("interactive", 0), ("default", 4), ("bulk", 99)])
def test_each_class_waits_as_long_as_its_budget(priority, waits):
    r = learned("a", size=1)
    r.admit(facts(), 0.0, nothing)

    tickets = [r.admit(facts(priority=priority), 0.0, nothing) for _ in range(100)]

    waiting = sum(t.decision is None for t in tickets)
    assert abs(waiting - waits) <= 1
    assert {t.outcome for t in tickets} <= {None, Outcome.SHED_DEADLINE}


@pytest.mark.parametrize("seen", [0, MEASURED - 1])
def test_nothing_is_refused_on_fewer_measurements_than_promised(seen):
    r = learned("a", size=1, measurements=seen)
    r.admit(facts(), 0.0, nothing)

    tickets = [r.admit(facts(priority="interactive"), 0.0, nothing) for _ in range(50)]

    assert all(t.decision is None for t in tickets)


def test_nothing_is_refused_while_one_of_the_engines_is_not_known():
    r = learned("a", size=1)
    known = r._replicas["a"]
    r = router("a", "b", size=1)
    r._replicas["a"].latency, r._replicas["a"]._service = known.latency, known._service
    for _ in range(2):
        r.admit(facts(), 0.0, nothing)

    assert r.admit(facts(priority="interactive"), 0.0, nothing).decision is None


def test_a_prompt_that_takes_longer_than_its_budget_on_an_idle_engine_is_served_all_the_same():
    r = learned("a")

    ticket = r.admit(facts(priority="interactive", prompt_tokens_estimate=60_000), 0.0, nothing)

    assert isinstance(ticket.decision, Endpoint)


def test_and_it_may_wait_for_as_long_as_it_needs_itself():
    r = learned("a", size=1)
    r.admit(facts(), 0.0, nothing)

    ticket = r.admit(facts(priority="interactive", prompt_tokens_estimate=60_000, max_tokens=1), 0.0, nothing)

    assert ticket.patience_s == pytest.approx(120.0, rel=0.2)


def test_a_budget_that_the_client_names_is_meant_even_on_an_idle_engine():
    r = learned("a")
    asked = facts(ttft_budget_s=0.4)

    shed = refused(r.admit(asked, 0.0, nothing))

    assert (shed.outcome, shed.status) == (Outcome.SHED_DEADLINE, 429)
    assert "400 ms" in shed.message and "1000 ms" in shed.message
    assert isinstance(r.admit(facts(ttft_budget_s=1.5), 0.0, nothing).decision, Endpoint)


def test_a_budget_that_the_client_names_refuses_nothing_before_anything_is_measured():
    r = router("a")

    assert isinstance(r.admit(facts(ttft_budget_s=0.001), 0.0, nothing).decision, Endpoint)


def test_a_budget_that_the_client_names_wins_over_its_class():
    r = learned("a", size=1)
    r.admit(facts(), 0.0, nothing)

    patient = r.admit(facts(priority="interactive", ttft_budget_s=60.0), 0.0, nothing)

    assert patient.decision is None


def test_answers_that_are_not_streamed_teach_how_fast_requests_leave():
    r = router("a", size=1)
    for number in range(MEASURED):
        run(r, 10.0 * number, 4.0, facts(stream=False))
    r.admit(facts(stream=False), 500.0, nothing)

    assert refused(r.admit(facts(priority="interactive"), 500.0, nothing)).outcome is Outcome.SHED_DEADLINE


def test_who_waits_is_dropped_when_its_turn_comes_too_late():
    r = learned("a", size=1)
    first = r.admit(facts(), 0.0, nothing)
    rung = []
    late = r.admit(facts(), 0.0, lambda: rung.append(1))
    assert late.decision is None

    first.settle(9.5, None)

    assert refused(late).outcome is Outcome.SHED_DEADLINE, "a second for its prompt, and ten were allowed"
    assert rung == [1]
    assert r.snapshot().replicas[0].in_flight == 0


def test_who_waits_is_dropped_when_its_patience_is_over():
    r = learned("a", size=1)
    r.admit(facts(), 0.0, nothing)
    late = r.admit(facts(), 0.0, nothing)

    assert r.expire(9.9) is not None
    assert late.decision is None
    r.expire(10.1)

    assert refused(late).outcome is Outcome.SHED_DEADLINE


def test_who_waits_without_measurements_waits_as_before():
    r = router("a", size=1)
    r.admit(facts(), 0.0, nothing)
    late = r.admit(facts(priority="interactive"), 0.0, nothing)

    assert r.expire(299.0) == 300.0
    assert late.decision is None
    r.expire(300.0)

    assert refused(late).outcome is Outcome.EXPIRED


def test_a_lesser_target_serves_who_would_wait_too_long_for_the_better_one():
    r = learned("a", size=1)
    other = Endpoint(id="z", backend="other", url="http://z", max_in_flight=1)
    both = Router(
        [Endpoint(id="a", backend="b", url="http://a", max_in_flight=1), other],
        max_queue=100,
        queue_timeout_s=300.0,
    )
    known = r._replicas["a"]
    both._replicas["a"].latency, both._replicas["a"]._service = known.latency, known._service
    asked = facts(backend="b", prefer=True, priority="interactive")
    assert both.admit(asked, 0.0, nothing).endpoint.id == "a"

    relaxed = both.admit(asked, 0.0, nothing)

    assert relaxed.endpoint is not None and relaxed.endpoint.id == "z"
    assert relaxed.relaxed


@pytest.mark.parametrize(
    ("age", "share"), [(None, 1.0), (0.1, 1.0), (0.2, 1.0), (0.7, 0.8), (1.0, 0.8), (60.0, 0.6)]
)
def test_the_older_a_reading_the_less_of_a_budget_is_counted_on(age, share):
    assert slack(age) == share


# The queue's bounds


@pytest.mark.parametrize(
    ("policy", "changes"),
    [
        (AdmissionPolicy(max_queue_tokens=2500), {}),
        (AdmissionPolicy(max_queue_bytes=2500), {"body_bytes": 1000}),
    ],
)
def test_the_queue_is_bounded_in_tokens_and_in_bytes(policy, changes):
    r = router("a", size=1, policy=policy)
    r.admit(facts(**changes), 0.0, nothing)

    tickets = [r.admit(facts(**changes), 0.0, nothing) for _ in range(4)]

    assert [t.outcome for t in tickets] == [None, None, Outcome.SHED_CAPACITY, Outcome.SHED_CAPACITY]
    assert refused(tickets[3]).status == 429
    tickets[0].cancel(1.0)
    assert r.admit(facts(**changes), 1.0, nothing).decision is None


def test_a_request_larger_than_the_bound_may_wait_alone():
    r = router("a", size=1, policy=AdmissionPolicy(max_queue_tokens=10))
    r.admit(facts(), 0.0, nothing)

    assert r.admit(facts(), 0.0, nothing).decision is None
    assert r.admit(facts(), 0.0, nothing).outcome is Outcome.SHED_CAPACITY


def test_an_urgent_request_takes_the_places_of_as_many_others_as_it_needs_and_of_no_more():
    r = router("a", size=1, policy=AdmissionPolicy(max_queue_tokens=4000))
    r.admit(facts(), 0.0, nothing)
    bulk = [r.admit(facts(priority="bulk"), 0.0, nothing) for _ in range(4)]

    urgent = r.admit(facts(priority="interactive", prompt_tokens_estimate=1500), 0.0, nothing)

    assert urgent.decision is None
    assert [t.outcome for t in bulk] == [None, None, Outcome.SHED_CAPACITY, Outcome.SHED_CAPACITY]


def test_nobody_is_turned_out_for_one_who_would_not_fit_even_then():
    r = router("a", size=1, policy=AdmissionPolicy(max_queue_tokens=4000))
    r.admit(facts(), 0.0, nothing)
    other = r.admit(facts(), 0.0, nothing)
    bulk = r.admit(facts(priority="bulk"), 0.0, nothing)

    shed = r.admit(facts(priority="interactive", prompt_tokens_estimate=9000), 0.0, nothing)
    same = r.admit(facts(prompt_tokens_estimate=3500), 0.0, nothing)

    assert (shed.outcome, same.outcome) == (None, Outcome.SHED_CAPACITY)
    assert (other.outcome, bulk.outcome) == (Outcome.SHED_CAPACITY, Outcome.SHED_CAPACITY)


# One fate for each


def test_who_leaves_when_its_time_was_over_already_has_one_fate():
    """The look at the clock lets a suspended endpoint be tried, which ends the wait: too late for it."""
    r = learned("a", "z", size=1, failover=Failover(breaker_failures=1, breaker_open_s=5.0))
    first, second = r.admit(facts(), 0.0, nothing), r.admit(facts(), 0.0, nothing)
    second.settle(0.0, None, FailureClass.BROKEN)
    waiting = r.admit(facts(), 0.0, nothing)
    assert (first.endpoint is not None, waiting.decision) == (True, None)

    waiting.cancel(30.0)

    assert waiting.outcome is Outcome.SHED_DEADLINE
    assert [s.in_flight for s in r.snapshot().replicas if s.endpoint.id != first.endpoint.id] == [0]


def test_a_retried_request_gives_its_tokens_back_where_it_failed_and_holds_them_where_it_goes():
    r = router("a", "z")
    ticket = r.admit(facts(), 0.0, nothing)
    first = ticket.endpoint.id

    ticket.retry(1.0, FailureClass.BROKEN, nothing)

    held = {s.endpoint.id: s.work.work for s in r.snapshot().replicas}
    assert held == {first: 0, ticket.endpoint.id: TOKENS + 2 * OUTPUT}
    ticket.settle(2.0, None)
    assert {s.work.work for s in r.snapshot().replicas} == {0}


def test_the_answer_of_an_engine_that_was_started_anew_is_learned_anew():
    r = learned("a")
    r.record_load("a", EngineLoad(generation_tokens=1000), 0.0)
    assert r.snapshot().replicas[0].work.ttft_measured >= MEASURED

    r.record_load("a", EngineLoad(generation_tokens=5), 1.0)

    assert r.snapshot().replicas[0].work.ttft_measured == 0


def test_an_engines_refusal_for_a_full_queue_is_not_its_fault():
    """vLLM answers 503 with its own queue full: try the next one, and hold nothing against it."""
    r = router("a", "z")
    for number in range(20):
        ticket = r.admit(facts(), float(number), nothing)
        ticket.retry(float(number), FailureClass.OVERLOADED, nothing)
        if ticket.endpoint is not None:
            ticket.settle(number + 0.5, Usage(prompt_tokens=1, completion_tokens=1))

    assert [s.failures for s in r.snapshot().replicas] == [0, 0]
    assert all(s.in_flight == 0 for s in r.snapshot().replicas)
