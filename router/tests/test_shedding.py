"""Who is let in, who is told to come back, and when: by what was measured, and by nothing else."""

from __future__ import annotations

import random

import pytest

from sluice_router.admission_policy import AdmissionPolicy, slack
from sluice_router.failure import Failover
from sluice_router.latency_model import MEASURED
from sluice_router.router import Router
from sluice_router.types import Endpoint, EngineLoad, FailureClass, Outcome, Reject, RequestFacts, Usage

TOKENS_PER_S = 1000.0
TOKENS = 1000
OUTPUT = 10
DEFAULTS = AdmissionPolicy()


def nothing() -> None:
    pass


def facts(**changes: object) -> RequestFacts:
    defaults = {
        "request_id": "r",
        "kind": "chat",
        "model": "m",
        "stream": True,
        "prompt_tokens_estimate": TOKENS,
        "max_tokens": OUTPUT,
    }
    return RequestFacts(**{**defaults, **changes})


def router(*names: str, size: int = 64, policy: AdmissionPolicy = DEFAULTS, **changes: object) -> Router:
    endpoints = [Endpoint(id=n, backend="b", url=f"http://{n}", max_in_flight=size) for n in names]
    options = {"max_queue": 100, "queue_timeout_s": 300.0, "admission": policy, "random": lambda: 0.0}
    return Router(endpoints, **{**options, **changes})


def run(
    r: Router, now: float, seconds: float, asked: RequestFacts | None = None, first_s: float | None = None
):
    """One request, alone, that takes so long."""
    asked = asked or facts()
    ticket = r.admit(asked, now, nothing)
    assert isinstance(ticket.decision, Endpoint), ticket.decision
    if first_s is not None:
        ticket.first_token(now + first_s)
    usage = Usage(prompt_tokens=asked.prompt_tokens_estimate, completion_tokens=OUTPUT)
    ticket.settle(now + seconds, usage)
    return ticket


def learned(*names: str, measurements: int = MEASURED, service_s: float = 2.0, **changes: object) -> Router:
    """A router whose engines were seen to prefill a thousand tokens a second, one prompt after the other."""
    r = router(*names, **changes)
    now = -10_000.0
    for number in range(measurements):
        for _ in names:
            size = 200 * (number % 5 + 1)
            run(r, now, service_s, facts(prompt_tokens_estimate=size), first_s=size / TOKENS_PER_S)
            now += 50.0
    return r


def also_knows_queues(r: Router) -> None:
    """And two of them at once, so that it is known what one waits for another."""
    for number in range(12):
        now = -5000.0 + 50 * number
        one, two = r.admit(facts(), now, nothing), r.admit(facts(), now, nothing)
        one.first_token(now + 1.0)
        two.first_token(now + 2.0)
        for ticket in (one, two):
            ticket.settle(now + 3.0, Usage(prompt_tokens=TOKENS, completion_tokens=OUTPUT))


def refused(ticket) -> Reject:
    assert isinstance(ticket.decision, Reject), ticket.decision
    return ticket.decision


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
    r._replicas["a"].latency, r._replicas["a"]._served = known.latency, known._served
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
    both._replicas["a"].latency, both._replicas["a"]._served = known.latency, known._served
    both._replicas["a"]._worked, both._replicas["a"]._work_s = known._worked, known._work_s
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


# What is sent to an engine


def test_the_cache_of_an_engine_bounds_what_is_sent_to_it():
    r = router("a")
    r.record_load("a", EngineLoad(kv_capacity_tokens=10_000, kv_used_ratio=0.0), 0.0)

    tickets = [r.admit(facts(), 0.0, nothing) for _ in range(12)]

    placed = [t for t in tickets if t.endpoint]
    assert len(placed) == int(0.92 * 10_000 / (TOKENS + OUTPUT))
    placed[0].settle(1.0, None)
    assert tickets[len(placed)].endpoint is not None, "room was made"


def test_what_others_hold_in_the_cache_counts_as_well():
    r = router("a")
    r.record_load("a", EngineLoad(kv_capacity_tokens=10_000, kv_used_ratio=0.85), 0.0)
    first = r.admit(facts(), 0.0, nothing)
    assert first.endpoint is not None, "none of ours is there, so nothing of ours would ever make room"

    waiting = r.admit(facts(), 0.0, nothing)
    assert waiting.decision is None

    r.record_load("a", EngineLoad(kv_capacity_tokens=10_000, kv_used_ratio=0.3), 0.5)
    assert waiting.endpoint is not None


@pytest.mark.parametrize("load", [EngineLoad(), EngineLoad(kv_capacity_tokens=None, running=3, waiting=1)])
def test_an_engine_that_does_not_say_how_large_its_cache_is_has_no_such_bound(load):
    r = router("a")
    r.record_load("a", load, 0.0)

    tickets = [r.admit(facts(prompt_tokens_estimate=10**6), 0.0, nothing) for _ in range(64)]

    assert all(t.endpoint for t in tickets)


def test_a_request_larger_than_the_whole_cache_is_sent_to_an_empty_engine_which_will_judge_it():
    r = router("a")
    r.record_load("a", EngineLoad(kv_capacity_tokens=1000, kv_used_ratio=0.0), 0.0)

    assert r.admit(facts(prompt_tokens_estimate=50_000), 0.0, nothing).endpoint is not None


def test_no_more_are_sent_than_the_batch_has_places_and_one_that_waits_for_the_next():
    r = router("a")
    r.record_load("a", EngineLoad(max_running=4, running=0, waiting=0), 0.0)

    tickets = [r.admit(facts(), 0.0, nothing) for _ in range(10)]

    assert sum(t.endpoint is not None for t in tickets) == 5


def test_prompts_wait_in_the_router_and_not_in_the_engine():
    r = learned("a")
    also_knows_queues(r)
    tickets = [r.admit(facts(prompt_tokens_estimate=600), 0.0, nothing) for _ in range(4)]
    assert [t.endpoint is not None for t in tickets] == [True, True, False, False]

    tickets[0].first_token(1.0)

    assert tickets[2].endpoint is not None, "less than a second's worth of prompts was left"
    assert tickets[3].decision is None


def test_an_engine_that_computes_prompts_side_by_side_is_not_held_back():
    r = router("a")
    for number in range(30):
        now = 50.0 * number
        batch = [r.admit(facts(prompt_tokens_estimate=300 * (i + 1)), now, nothing) for i in range(4)]
        for i, ticket in enumerate(batch):
            ticket.first_token(now + 1.5 + 0.0001 * i)
        for ticket in batch:
            ticket.settle(now + 2.0, Usage(prompt_tokens=1, completion_tokens=1))

    tickets = [r.admit(facts(), 5000.0, nothing) for _ in range(64)]

    assert all(t.endpoint for t in tickets)


def test_nobody_who_needs_little_overtakes_one_who_needs_much():
    r = router("a")
    r.record_load("a", EngineLoad(kv_capacity_tokens=10_000, kv_used_ratio=0.0), 0.0)
    running = [r.admit(facts(), 0.0, nothing) for _ in range(5)]
    large = r.admit(facts(prompt_tokens_estimate=8500), 0.0, nothing)
    small = r.admit(facts(prompt_tokens_estimate=10), 0.0, nothing)
    assert (large.decision, small.decision) == (None, None)

    for ticket in running[:-1]:
        ticket.settle(1.0, None)
        assert small.decision is None
    running[-1].settle(1.0, None)

    assert large.endpoint is not None and small.endpoint is not None


@pytest.mark.parametrize("leaves", ["cancel", "expire"])
def test_when_the_large_one_leaves_the_small_ones_behind_it_are_served_at_once(leaves):
    r = router("a", queue_timeout_s=10.0)
    r.record_load("a", EngineLoad(kv_capacity_tokens=10_000, kv_used_ratio=0.0), 0.0)
    for _ in range(5):
        r.admit(facts(), 0.0, nothing)
    large = r.admit(facts(prompt_tokens_estimate=8000), 0.0, nothing)
    small = r.admit(facts(prompt_tokens_estimate=10), 5.0, nothing)

    if leaves == "cancel":
        large.cancel(6.0)
    else:
        r.expire(10.0)

    assert small.endpoint is not None


def test_what_waits_for_another_engine_is_not_in_the_way():
    r = router("a", "z")
    r.record_load("a", EngineLoad(kv_capacity_tokens=10_000, kv_used_ratio=0.0), 0.0)
    r.set_draining("z", True, 0.0)
    for _ in range(8):
        r.admit(facts(), 0.0, nothing)
    waiting = r.admit(facts(prompt_tokens_estimate=9000), 0.0, nothing)
    assert waiting.decision is None

    r.set_draining("z", False, 1.0)

    assert waiting.endpoint is not None and waiting.endpoint.id == "z"


def test_a_metrics_outage_holds_nobody_for_ever():
    r = router("a")
    r.record_load("a", EngineLoad(max_running=1, running=50), 0.0)
    r.admit(facts(), 0.0, nothing)
    waiting = r.admit(facts(), 0.0, nothing)
    assert waiting.decision is None

    now = 0.0
    while waiting.decision is None:
        following = r.expire(now)
        if following is not None:
            assert now < following <= now + 1.0
            now = following

    assert waiting.endpoint is not None
    assert now == pytest.approx(10.0, abs=1.1), "when the reading had grown old"


def test_when_the_large_one_goes_elsewhere_the_small_ones_behind_it_are_served_at_once():
    r = router("a", "z")
    for name in "az":
        r.record_load(name, EngineLoad(kv_capacity_tokens=10_000, kv_used_ratio=0.0), 0.0)
    running = [r.admit(facts(), 0.0, nothing) for _ in range(10)]
    r.set_models("a", ["m", "only-on-a"], 0.0)
    r.set_models("z", ["m"], 0.0)
    large = r.admit(facts(prompt_tokens_estimate=8500), 0.0, nothing)
    small = r.admit(facts(prompt_tokens_estimate=10, model="only-on-a"), 0.0, nothing)
    assert (large.decision, small.decision) == (None, None)

    for ticket in running:
        if ticket.endpoint.id == "z":
            ticket.settle(1.0, None)

    assert large.endpoint is not None and large.endpoint.id == "z"
    assert small.endpoint is not None and small.endpoint.id == "a"


def test_a_prompt_whose_first_token_nobody_sees_counts_as_computed_when_it_was_due():
    r = learned("a")
    r.admit(facts(stream=False), 0.0, nothing)
    r.admit(facts(stream=True), 0.0, nothing)
    assert r.snapshot().replicas[0].work.new_tokens_queued == 2 * TOKENS

    r.expire(5.0)

    assert r.snapshot().replicas[0].work.new_tokens_queued == TOKENS


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


def test_five_thousand_leases_over_a_long_random_day_leave_nothing_behind():
    rng = random.Random(1)
    r = router("a", "b", "c", size=2000, queue_timeout_s=20.0, max_queue=500)
    r.record_load("a", EngineLoad(kv_capacity_tokens=4_000_000, kv_used_ratio=0.1, max_running=1900), 0.0)
    open_tickets: list = []
    now, most = 0.0, 0
    for number in range(30_000):
        now += rng.expovariate(200.0)
        draw = rng.random()
        if draw < 0.55 or not open_tickets:
            size, kind = rng.randint(1, 3000), rng.choice(["interactive", "default", "bulk"])
            asked = facts(
                prompt_tokens_estimate=size, priority=kind, stream=rng.random() < 0.7, body_bytes=size
            )
            open_tickets.append(r.admit(asked, now, nothing))
        else:
            ticket = rng.choice(open_tickets)
            end_or_touch(rng, r, ticket, now)
        if number % 500 == 0:
            r.expire(now)
            open_tickets = [t for t in open_tickets if not t.closed]
            running = [t for t in open_tickets if t.endpoint is not None]
            most = max(most, len(running))
            for snapshot in r.snapshot().replicas:
                leases = [t.lease for t in running if t.endpoint.id == snapshot.endpoint.id]
                assert snapshot.work.leases == snapshot.in_flight == len(leases)
                assert snapshot.work.work == sum(lease.work for lease in leases)
    assert most > 5000
    assert min(s.settled for s in r.snapshot().replicas) > 500
    for ticket in open_tickets:
        ticket.settle(now, None, FailureClass.CLIENT_GONE)

    after = r.snapshot()
    assert [(s.in_flight, s.work.leases, s.work.work, s.work.new_tokens_queued) for s in after.replicas] == [
        (0,) * 4
    ] * 3
    assert (after.waiting, after.waiting_tokens, after.waiting_work, r._room._bytes) == (0, 0, 0, 0)
    assert after.admitted == sum(after.outcomes.values())


def end_or_touch(rng: random.Random, r: Router, ticket, now: float) -> None:
    """Something happens to a request."""
    draw = rng.random()
    if draw < 0.4:
        ticket.first_token(now)
    elif draw < 0.8:
        failure = rng.choice([*[None] * 150, *FailureClass])
        ticket.settle(
            now, Usage(prompt_tokens=rng.randint(1, 3000), completion_tokens=rng.randint(0, 40)), failure
        )
    elif draw < 0.9:
        ticket.cancel(now)
    elif draw < 0.93:
        ticket.retry(now, rng.choice([FailureClass.OVERLOADED, FailureClass.CALLER]), nothing)
    else:
        used = rng.random()
        r.record_load(rng.choice("abc"), EngineLoad(kv_capacity_tokens=4_000_000, kv_used_ratio=used), now)
