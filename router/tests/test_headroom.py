"""What is sent to an engine, by the room that it has."""

from __future__ import annotations

import pytest
from measured_router import OUTPUT, TOKENS, also_knows_queues, facts, learned, nothing, router

from sluice_router.types import EngineLoad, Usage

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
