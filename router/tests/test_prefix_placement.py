"""Prompts go where their beginning is, unless it is better elsewhere."""

from __future__ import annotations

from collections import Counter
from random import Random
from statistics import mean, pstdev

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest

from sluice_router import scoring
from sluice_router.admission_policy import AdmissionPolicy
from sluice_router.router import Router
from sluice_router.scoring import BARRIER, FULLEST, SIZE, SLOW_START_S
from sluice_router.speculation import TTL_S
from sluice_router.ticket import Ticket
from sluice_router.types import Endpoint, EngineLoad, FailureClass, Reject, RequestFacts, Usage

BLOCK = 64


def router(count: int, *, size: int = 64, seed: int = 0, **options) -> Router:
    endpoints = [
        Endpoint(id=f"e{n}", backend="b", url=f"http://e{n}", max_in_flight=size) for n in range(count)
    ]
    options = {"max_queue": 0, "queue_timeout_s": 30.0, "random": Random(seed).random, **options}
    return Router(endpoints, **options)


def chain(*path: object) -> tuple[int, ...]:
    """A block for each step, depending on all before it."""
    numbers, state = [], 0
    for step in path:
        state = xxh3_64_intdigest(repr(step).encode(), state)
        numbers.append(state)
    return tuple(numbers)


def facts(prefix: tuple[int, ...], **changes) -> RequestFacts:
    values = {
        "request_id": "r",
        "kind": "chat",
        "model": "m",
        "stream": True,
        "prefix": prefix,
        "prompt_tokens_estimate": BLOCK * len(prefix) + 10,
    }
    return RequestFacts(**{**values, **changes})


def admit(to: Router, asked: RequestFacts, now: float = 0.0) -> Ticket:
    return to.admit(asked, now, lambda: None)


def run(to: Router, asked: RequestFacts, now: float = 0.0, usage: Usage | None = None) -> str:
    """Where a request that is computed to its end goes."""
    ticket = admit(to, asked, now)
    ticket.first_token(now)
    ticket.settle(now, usage)
    return ticket.endpoint.id


def key_of(number: int) -> tuple[int, ...]:
    return chain(number, *range(13))


# Where a prompt goes


def test_the_next_turn_goes_where_the_turn_before_went():
    fleet, turns = router(20), {n: key_of(n) for n in range(30)}
    first = {n: run(fleet, facts(turn)) for n, turn in turns.items()}

    for round_ in range(1, 4):
        for n in turns:
            turns[n] = (*turns[n], *chain(turns[n], *range(5)))
            ticket = admit(fleet, facts(turns[n]), 60.0 * round_)
            assert ticket.endpoint.id == first[n]
            assert ticket.reason == "prefix_hit"
            assert ticket.hit_tokens == BLOCK * (len(turns[n]) - 6)
            ticket.first_token(60.0 * round_)
            ticket.settle(60.0 * round_, None)
    assert len(set(first.values())) > 8


def test_gateways_that_share_nothing_agree():
    gateways = [router(30, seed=n) for n in range(16)]

    for n in range(40):
        assert len({run(gateway, facts(key_of(n)), float(n)) for gateway in gateways}) == 1


def test_a_gateway_with_other_load_chooses_between_the_same_two():
    idle, busy = router(30), router(30, seed=1)
    held = [admit(busy, facts(key_of(n))) for n in range(300)]

    for n in range(1000, 1040):
        chosen = {s.endpoint for s in admit(busy, facts(key_of(n))).scores}
        assert run(idle, facts(key_of(n))) in chosen
        assert len(chosen) == 2
    assert all(t.endpoint for t in held)


def test_siblings_that_come_together_go_together():
    fleet, system = router(20), chain(*range(90))
    users = [admit(fleet, facts((*system, *chain(f"user {n}")))) for n in range(8)]

    assert [t.hit_tokens for t in users[2:]] == [90 * BLOCK] * 6, "two compute it, for the first is busy"
    assert len({t.endpoint.id for t in users}) == 2


def test_what_was_only_sent_is_forgotten_what_was_computed_is_not():
    fleet = router(20)
    sent, computed = key_of(1), key_of(2)
    admit(fleet, facts(sent)).settle(0.0, None, FailureClass.TIMEOUT)
    run(fleet, facts(computed))

    assert admit(fleet, facts(sent), TTL_S).hit_tokens > 0
    assert admit(fleet, facts(sent), 60.0).hit_tokens == 0
    assert admit(fleet, facts(computed), 60.0).hit_tokens > 0


def test_a_plain_answer_that_ended_well_was_computed():
    fleet = router(20)
    admit(fleet, facts(key_of(1), stream=False)).settle(0.0, None)
    admit(fleet, facts(key_of(2), stream=False)).settle(0.0, None, FailureClass.BROKEN)

    assert admit(fleet, facts(key_of(1)), 60.0).hit_tokens > 0
    assert admit(fleet, facts(key_of(2)), 60.0).hit_tokens == 0


def test_a_conversation_is_found_where_it_was_pushed_to():
    fleet = router(20)
    home = admit(fleet, facts(key_of(1)))
    pair = [s.endpoint for s in home.scores]
    for name in pair:
        fleet.set_draining(name, True, 0.0)
    away = run(fleet, facts(key_of(1)))
    for name in pair:
        fleet.set_draining(name, False, 0.0)

    back = admit(fleet, facts((*key_of(1), *chain("more"))), 60.0)
    assert away not in pair
    assert back.endpoint.id == away
    assert back.scores[2].why == scoring.OWNER


def test_what_failed_a_request_is_not_its_candidate():
    fleet = router(20)
    ticket = admit(fleet, facts(key_of(1)))
    first, second = (s.endpoint for s in ticket.scores)
    ticket.retry(0.0, FailureClass.UNREACHABLE, lambda: None)

    assert ticket.endpoint.id != first
    assert first not in {s.endpoint for s in ticket.scores}
    assert second in {s.endpoint for s in ticket.scores}


def test_a_session_goes_home_whatever_its_prompt_begins_with():
    fleet = router(20)
    homes = {run(fleet, facts(key_of(n), session="s")) for n in range(10)}

    assert len(homes) == 1
    ticket = admit(fleet, facts(key_of(1), session="s"), 60.0)
    assert (ticket.reason, ticket.hit_tokens) == ("affinity", 14 * BLOCK)


def test_the_session_of_a_full_home_goes_to_its_second():
    fleet = router(20, size=1)
    homes = [admit(fleet, facts(key_of(n), session="s")) for n in range(2)]
    other = router(20, size=1)
    others = [admit(other, facts(key_of(9 + n), session="s")) for n in range(2)]

    assert homes[0].endpoint != homes[1].endpoint
    assert [t.endpoint for t in homes] == [t.endpoint for t in others]


def test_when_the_candidates_are_full_whoever_has_room_serves():
    fleet = router(20, size=1)
    tickets = [admit(fleet, facts(key_of(1))) for _ in range(21)]

    assert [t.reason for t in tickets[:2]] == ["prefix_hash", "prefix_hash"]
    assert len({t.endpoint.id for t in tickets[:20]}) == 20
    assert "spill" in {t.reason for t in tickets[2:20]}
    assert isinstance(tickets[20].decision, Reject)


def test_a_prompt_that_would_wait_long_goes_where_it_waits_less():
    fleet = router(12)
    names = [s.endpoint for s in admit(fleet, facts(key_of(1))).scores]
    for replica in fleet._replicas.values():
        per_s = 100 if replica.endpoint.id in names else 1000
        for tokens in range(100, 1100, 50):
            replica.latency.learn_ttft(tokens, 0, 0, tokens / per_s)

    spilt = admit(fleet, facts(key_of(1)), 60.0)
    assert spilt.reason == "spill"
    assert spilt.endpoint.id not in names
    assert [s.why for s in spilt.scores] == ["first", "second", "drawn", "drawn"]
    bulk = admit(fleet, facts(key_of(2), priority="bulk"), 60.0)
    assert [s.why for s in bulk.scores] == ["first", "second"], "it has the patience"
    short = admit(fleet, facts(key_of(1)[:5]), 60.0)
    assert short.endpoint.id in names, "it is soon done"


# What is known of caches


def test_an_engine_that_was_away_is_taken_to_have_forgotten_and_is_given_little_at_first():
    fleet = router(2)
    at = run(fleet, facts(key_of(1)))
    assert admit(fleet, facts(key_of(1)), 60.0).hit_tokens > 0
    fleet.set_health(at, False, 70.0)
    fleet.set_health(at, True, 70.0)

    ticket = admit(fleet, facts(key_of(1)), 70.0)
    assert ticket.hit_tokens == 0
    assert ticket.endpoint.id != at
    assert {s.endpoint: s.warmth for s in ticket.scores}[at] == scoring.COOLEST
    later = admit(fleet, facts(key_of(2)), 70.0 + SLOW_START_S)
    assert {s.warmth for s in later.scores} == {1.0}


def test_nor_does_it_have_what_it_was_just_sent():
    fleet = router(2)
    at = admit(fleet, facts(key_of(1))).endpoint.id
    fleet.set_health(at, False, 0.0)
    fleet.set_health(at, True, 0.0)

    assert {s.endpoint: s.hit_tokens for s in admit(fleet, facts(key_of(1))).scores}[at] == 0


def test_an_engine_that_was_started_anew_is_known_by_its_counters():
    fleet = router(2)
    at = run(fleet, facts(key_of(1)))
    fleet.record_load(at, EngineLoad(prompt_tokens=900), 60.0)
    assert admit(fleet, facts(key_of(1)), 60.0).endpoint.id == at
    fleet.record_load(at, EngineLoad(prompt_tokens=3), 61.0)

    assert all(s.hit_tokens == 0 for s in admit(fleet, facts(key_of(1)), 120.0).scores)


def test_a_recovered_endpoint_gets_its_share_little_by_little():
    def gets(now: float) -> int:
        fleet = router(2)
        fleet.set_health("e1", False, 0.0)
        fleet.set_health("e1", True, 0.0)
        return sum(admit(fleet, facts(()), now).endpoint.id == "e1" for _ in range(60))

    assert gets(0.0) < gets(SLOW_START_S / 3) < gets(SLOW_START_S) == 30
    assert 0 < gets(0.0) < 10


def test_no_more_is_believed_than_the_cache_holds():
    fleet = router(2)
    (at,) = {run(fleet, facts(key_of(1)))}
    for name in ("e0", "e1"):
        fleet.record_load(name, EngineLoad(kv_capacity_tokens=20 * BLOCK), 0.0)
    for n in range(2, 20):
        run(fleet, facts(key_of(n)), float(n))

    assert fleet.snapshot().prefix_blocks <= 40
    assert all(s.hit_tokens == 0 for s in admit(fleet, facts(key_of(1)), 60.0).scores), at


def test_all_indexes_together_are_bounded():
    fleet = router(10, prefix_blocks=200)
    for n in range(300):
        run(fleet, facts(key_of(n)), float(n))

    assert 100 < fleet.snapshot().prefix_blocks <= 200
    assert 0 < fleet.snapshot().prefix_bytes < 200 * 20 + 10 * 400


def test_expectation_and_truth_are_counted_side_by_side():
    fleet = router(2)
    at = run(fleet, facts(key_of(1)), usage=Usage(prompt_tokens=906))
    run(fleet, facts(key_of(1)), usage=Usage(prompt_tokens=906, cached_tokens=800))
    run(fleet, facts(key_of(1)))
    run(fleet, facts(()), usage=Usage(prompt_tokens=5, cached_tokens=5))

    found = {r.endpoint.id: (r.expected_tokens, r.cached_tokens) for r in fleet.snapshot().replicas}
    assert found[at] == (14 * BLOCK, 800)


def test_only_what_is_not_cached_has_to_be_computed():
    fleet = router(2)
    run(fleet, facts(key_of(1)))
    ticket = admit(fleet, facts(key_of(1)), 60.0)

    (queued,) = {r.work.new_tokens_queued for r in fleet.snapshot().replicas if r.in_flight}
    assert queued == 10 == ticket.cost.prompt_tokens - ticket.hit_tokens


# Many at once


def test_a_hot_prefix_spreads_and_keeps_its_hits():
    """One system prompt has half of all traffic of sixteen endpoints."""
    fleet, random = router(16), Random(5)
    system = chain("system", *range(94))
    busy: list[tuple[float, Ticket]] = []
    load, hits = Counter[str](), 0
    for n in range(3000):
        now = n * 0.02
        while busy and busy[0][0] <= now:
            busy.pop(0)[1].settle(now, None)
        hot = random.random() < 0.5
        prefix = (*system, *chain("user", n)) if hot else chain(random.random(), *range(20))
        ticket = admit(fleet, facts(prefix), now)
        ticket.first_token(now)
        busy.append((now + 2.0, ticket))
        if n >= 1000:
            load[ticket.endpoint.id] += 1
            hits += hot and ticket.hit_tokens >= 90 * BLOCK

    assert len(load) == 16
    assert pstdev(load.values()) / mean(load.values()) < 0.15
    assert hits > 0.9 * 1000


def test_prompts_without_a_prefix_spread_over_many_endpoints():
    fleet = router(200)
    tickets = [admit(fleet, facts(())) for _ in range(1000)]

    load = Counter(t.endpoint.id for t in tickets)
    assert {t.reason for t in tickets} == {"least_loaded"}
    assert len(load) > 180
    assert max(load.values()) < 12


@pytest.mark.parametrize("prefix", [(), key_of(1)])
def test_the_last_free_endpoint_of_many_is_found(prefix: tuple[int, ...]):
    fleet = router(60, size=1, max_queue=5)
    tickets = [admit(fleet, facts(prefix)) for _ in range(60)]
    assert {t.endpoint.id for t in tickets} == {f"e{n}" for n in range(60)}
    waiting = admit(fleet, facts(prefix))
    assert waiting.decision is None

    tickets[37].settle(1.0, None)
    assert waiting.endpoint == tickets[37].endpoint
    tickets[11].settle(1.0, None)
    assert admit(fleet, facts(prefix), 1.0).endpoint == tickets[11].endpoint


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_among_many_nothing_waits_that_could_run(data: st.DataObject):
    fleet = router(20, size=1, max_queue=100, seed=data.draw(st.integers(0, 99)))
    tickets: list[Ticket] = []
    for step in range(60):
        action = data.draw(st.sampled_from(["admit", "admit", "admit", "settle", "health", "retry"]))
        open_ = [t for t in tickets if t.endpoint is not None and not t.closed]
        name = f"e{data.draw(st.integers(0, 19))}"
        if action == "admit":
            prefix = data.draw(st.sampled_from([(), key_of(1), key_of(2)]))
            session = data.draw(st.sampled_from([None, None, "s"]))
            tickets.append(admit(fleet, facts(prefix, session=session), float(step)))
        elif action == "settle" and open_:
            data.draw(st.sampled_from(open_)).settle(float(step), None)
        elif action == "retry" and open_:
            ticket = data.draw(st.sampled_from(open_))
            ticket.retry(float(step), FailureClass.OVERLOADED, lambda: None)
        elif action == "health":
            fleet.set_health(name, data.draw(st.sampled_from([True, True, False])), float(step))
        free = {r.endpoint.id for r in fleet.snapshot().replicas if r.healthy and not r.in_flight}
        for ticket in tickets:
            assert ticket.decision is not None or free <= ticket.excluded


# The choice, by a twin that knows nothing of how it is made


def brute_force(fleet: Router, asked: RequestFacts, sent: dict[str, list[tuple[int, ...]]]) -> str:
    """The endpoint with the lowest score, computed from what the snapshot and a list of prompts say."""

    def hit(name: str) -> int:
        shared = (
            sum(1 for n in range(len(asked.prefix)) if asked.prefix[: n + 1] == other[: n + 1])
            for other in sent[name]
        )
        return min(BLOCK * max(shared, default=0), asked.prompt_tokens_estimate - 1)

    def score(replica) -> float:
        new = asked.prompt_tokens_estimate - hit(replica.endpoint.id)
        kv = min(FULLEST, replica.work.kv_used_ratio or 0.0)
        batch = (replica.work.leases + 1) * SIZE / replica.endpoint.max_in_flight
        return (replica.work.new_tokens_queued + new) * batch + BARRIER * kv / (1.0 - kv)

    return min(fleet.snapshot().replicas, key=lambda r: (score(r), r.work.work)).endpoint.id


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), kv=st.lists(st.floats(0.0, 0.8), min_size=2, max_size=2))
def test_between_two_the_choice_is_that_of_the_formula(seed: int, kv: list[float]):
    random = Random(seed)
    fleet = router(2, admission=AdmissionPolicy(bulk_ttft_s=1e9))
    for name, used in zip(("e0", "e1"), kv, strict=True):
        load = EngineLoad(kv_used_ratio=used, kv_capacity_tokens=10_000_000)
        fleet.record_load(name, load, 0.0)
    sent: dict[str, list[tuple[int, ...]]] = {"e0": [], "e1": []}
    open_: list[Ticket] = []
    for _ in range(60):
        prefix = chain(*(random.randrange(2) for _ in range(random.randrange(1, 12))))
        asked = facts(prefix, prompt_tokens_estimate=BLOCK * len(prefix) + random.randrange(1, 900))
        expected = brute_force(fleet, asked, sent)
        ticket = admit(fleet, asked, 0.0)
        ranked = sorted(s.score for s in ticket.scores)
        assert ticket.endpoint.id == expected or ranked[0] == ranked[1]
        sent[ticket.endpoint.id].append(prefix)
        open_.append(ticket)
        if random.random() < 0.7:
            open_[random.randrange(len(open_))].first_token(0.0)
        if random.random() < 0.4:
            open_.pop(random.randrange(len(open_))).settle(0.0, None)


def test_a_lone_router_and_one_whose_random_numbers_are_constant_serve_as_well():
    fleet: Router = router(30, random=lambda: 0.5)
    assert len({admit(fleet, facts(())).endpoint.id for _ in range(30)}) == 8
    assert run(router(1), facts(key_of(1))) == "e0"


def test_facts_of_a_chain_are_values():
    asked = facts(key_of(1))
    assert msgspec.json.decode(msgspec.json.encode(asked), type=RequestFacts) == asked
