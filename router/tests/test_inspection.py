"""What can be asked of a router by people who want to know why."""

from __future__ import annotations

from math import exp

import pytest
from measured_router import OUTPUT, TOKENS, also_knows_queues, facts, learned, nothing, refused, router

from sluice_router.failure import Failover
from sluice_router.placer import REMEMBERED
from sluice_router.types import FailureClass

PREFIX = (3 << 60, 7 << 59)


def test_what_waits_is_told_by_class_and_tenant_with_the_age_of_the_oldest():
    r = router("a", size=1)
    r.admit(facts(), 0.0, nothing)
    for at, tenant, priority in (
        (1.0, "y", "bulk"),
        (2.0, "x", "interactive"),
        (3.0, "y", "interactive"),
        (4.0, "y", "interactive"),
    ):
        r.admit(facts(tenant=tenant, priority=priority, body_bytes=70), at, nothing)

    found = r.details(5.0)

    assert [(w.priority, w.tenant, w.requests, w.oldest_arrived_at) for w in found.waiting] == [
        ("interactive", "y", 2, 3.0),
        ("interactive", "x", 1, 2.0),
        ("bulk", "y", 1, 1.0),
    ]
    assert (found.waiting[0].tokens, found.waiting[0].work) == (2 * TOKENS, 2 * (TOKENS + 2 * OUTPUT))
    assert found.waiting_bytes == 4 * 70
    assert sum(w.work for w in found.waiting) == r.snapshot().waiting_work


def test_the_oldest_lease_is_the_one_that_was_placed_first_of_those_that_are_open():
    r = router("a", "b")
    tickets = [r.admit(facts(session="s"), float(at), nothing) for at in range(4)]
    home = tickets[0].endpoint.id

    def oldest(name: str) -> float | None:
        return next(s.work.oldest_lease_at for s in r.snapshot().replicas if s.endpoint.id == name)

    assert oldest(home) == 0.0
    tickets[1].settle(5.0, None)
    assert oldest(home) == 0.0
    tickets[0].settle(6.0, None)
    assert oldest(home) == 2.0
    for ticket in tickets:
        ticket.settle(7.0, None)
    assert (oldest("a"), oldest("b")) == (None, None)


def test_speeds_are_those_that_times_are_predicted_with():
    fresh = router("a").snapshot().replicas[0].speed
    assert {getattr(fresh, name) for name in fresh.__struct_fields__} == {None, 0}

    r = learned("a")
    also_knows_queues(r)
    speed, latency = r.snapshot().replicas[0].speed, r._replicas["a"].latency
    new, ahead, running, batch = 700, 300, 2, 5.0

    ttft_s = speed.ttft_base_s + new * speed.own_token_s + ahead * speed.queued_token_s
    ttft_s += (new + ahead) * running * speed.beside_token_s
    assert ttft_s == pytest.approx(latency.ttft_s(new, ahead, running))
    assert speed.itl_base_s + batch * speed.itl_request_s == pytest.approx(latency.itl_s(batch))
    assert speed.itl_measured == latency.itl_measured > 0


def test_who_is_expected_back_is_told_until_it_has_come_or_is_late():
    r = learned("a", size=1, max_queue=1)
    first, _ = (r.admit(facts(), 0.0, nothing) for _ in range(2))
    assert r.details(0.0).returns.expected == 0

    told = [refused(r.admit(facts(prompt_tokens_estimate=n), 0.0, nothing)).retry_after_s for n in (400, 800)]
    returns = r.details(0.0).returns
    assert (returns.expected, returns.last_at) == (2, pytest.approx(max(told)))
    assert returns.service_s > 0.0
    assert r.details(1000.0).returns.last_at is None

    first.settle(1.0, None)
    r.admit(facts(prompt_tokens_estimate=400), told[0], nothing)
    assert r.details(told[0]).returns.expected == 1


def test_the_budget_of_retries_is_told_and_decays():
    r = router("a", "b", failover=Failover(retry_ratio=0.5, retry_floor=1.0, retry_window_s=10.0))
    assert r.details(0.0).retries_left == 1.0
    ticket = r.admit(facts(), 0.0, nothing)
    assert r.details(0.0).retries_left == 1.5
    ticket.retry(0.0, FailureClass.BROKEN, nothing)
    assert r.details(0.0).retries_left == 0.5
    assert r.details(10.0).retries_left == pytest.approx(1.0 - 0.5 * exp(-1))


def test_an_open_breaker_says_when_it_will_let_a_request_pass():
    r = router("a", failover=Failover(breaker_failures=1, breaker_open_s=4.0))
    assert r.snapshot().replicas[0].probe_at is None
    r.admit(facts(), 0.0, nothing).settle(2.0, None, FailureClass.FAULT)

    assert r.snapshot().replicas[0].probe_at == pytest.approx(6.0, rel=0.25)
    r.expire(20.0)
    assert r.snapshot().replicas[0].probe_at is None


def test_the_last_placements_are_told_with_the_scores_they_were_decided_by():
    r = router("a", "b", size=REMEMBERED * 2)
    for number in range(REMEMBERED + 3):
        r.admit(facts(request_id=str(number), prefix=PREFIX), float(number), nothing).first_token(number)

    placed = r.details(50.0).placed

    assert [int(p.request_id) for p in placed] == list(range(REMEMBERED + 2, 2, -1))
    newest = placed[0]
    assert (newest.placed_at, newest.prompt_tokens, newest.hit_tokens) == (REMEMBERED + 2, TOKENS, 128)
    assert newest.output_tokens == OUTPUT
    assert {score.endpoint for score in newest.scores} == {"a", "b"}
    lowest = min(newest.scores, key=lambda score: score.score)
    assert f"endpoint={lowest.endpoint}; reason=prefix_hit" in newest.route


def test_a_placement_that_was_taken_back_is_not_told_and_one_made_again_is_told_once():
    r = router("a", "b", size=1)
    one, other = (r.admit(facts(request_id=name), 0.0, nothing) for name in ("one", "other"))
    one.retry(1.0, FailureClass.OVERLOADED, nothing)
    assert [p.request_id for p in r.details(1.0).placed] == ["other"]

    other.settle(3.0, None)
    placed = r.details(3.0).placed
    assert [(p.request_id, p.placed_at, p.waited_s) for p in placed] == [
        ("one", 3.0, 2.0),
        ("other", 0.0, 0.0),
    ]
    assert "reason=retry:2" in placed[0].route


def test_asking_changes_nothing():
    asked, left_alone = (learned("a", size=1, max_queue=2) for _ in range(2))
    told = []
    for r in (asked, left_alone):
        said = []
        for number in range(60):
            ticket = r.admit(facts(tenant=f"t{number % 3}"), number / 3, nothing)
            if r is asked:
                r.details(number / 3 + 30.0)
                r.snapshot()
            if number % 5 == 0:
                ticket.settle(number / 3 + 0.3, None)
            said.append((ticket.route, getattr(ticket.decision, "retry_after_s", None)))
        told.append((said, r.details(40.0), r.snapshot()))

    assert told[0] == told[1]
