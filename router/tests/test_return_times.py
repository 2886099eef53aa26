"""Times to come back that are true when they are over."""

from __future__ import annotations

import random

import pytest

from sluice_router import return_times
from sluice_router.return_times import GRACE_S, MOST_S, ReturnTimes
from sluice_router.types import RequestFacts

LANE = frozenset({"a", "b"})


def facts(number: int = 0, **changes: object) -> RequestFacts:
    defaults = {"request_id": f"r{number}", "kind": "chat", "model": "m", "prompt_tokens_estimate": number}
    return RequestFacts(**{**defaults, **changes})


def times(r: float = 0.0) -> ReturnTimes:
    return ReturnTimes(lambda: r)


def test_the_first_is_told_its_wait_and_each_next_one_comes_when_the_one_before_was_served():
    told = times()

    assert [told.tell(facts(n), LANE, 3.0, 0.5, 0.0) for n in range(4)] == [3.0, 3.5, 4.0, 4.5]


def test_lanes_have_clocks_of_their_own():
    told = times()
    told.tell(facts(1), LANE, 3.0, 10.0, 0.0)

    assert told.tell(facts(2), frozenset({"z"}), 3.0, 10.0, 0.0) == 3.0


def test_nobody_is_told_less_than_a_second_or_more_than_a_minute():
    told = times()

    assert told.tell(facts(1), LANE, 0.001, 0.0, 0.0) == 1.0
    assert told.tell(facts(2), LANE, 1e9, 1e9, 0.0) == MOST_S
    assert told.reserved_s(LANE, 0.0) == 0.0, "what is too far away is not promised"


def test_the_random_share_is_on_top_and_bounded():
    assert times(1.0).tell(facts(1), LANE, 4.0, 1.0, 0.0) == pytest.approx(4.4)
    assert times(1.0).tell(facts(1), LANE, 40.0, 1.0, 0.0) == pytest.approx(41.0)


def test_who_comes_at_its_time_is_known_once():
    told = times()
    told.tell(facts(7), LANE, 5.0, 1.0, 0.0)

    assert not told.redeem(facts(7), 1.0), "too early"
    assert not told.redeem(facts(8), 5.0), "somebody else"
    assert not told.redeem(facts(7, tenant="other"), 5.0)
    assert told.redeem(facts(7, request_id="another id"), 4.9)
    assert not told.redeem(facts(7), 5.0)


def test_who_comes_much_too_late_is_a_newcomer():
    told = times()
    told.tell(facts(7), LANE, 5.0, 1.0, 0.0)

    assert not told.redeem(facts(7), 5.0 + GRACE_S + 0.1)
    assert len(told) == 0


def test_the_drain_is_spoken_for_until_the_last_has_come():
    told = times()
    for n in range(4):
        told.tell(facts(n), LANE, 3.0, 0.5, 0.0)

    assert told.reserved_s(LANE, 0.0) == 4.5
    assert told.reserved_s(LANE, 4.0) == 0.5
    assert told.reserved_s(LANE, 4.6) == 0.0


def test_nothing_is_held_for_clients_that_never_come_back():
    told, now = times(), 0.0
    for n in range(400):
        told.tell(facts(n), LANE, 1.0, 0.01, now)
        now += 0.1

    now += 10.0
    told.tell(facts(1000), LANE, 10.0, 1.0, now)
    assert told.reserved_s(LANE, now) < 0.1


def test_and_all_is_held_where_they_do():
    told, now = times(), 0.0
    for n in range(100):
        told.tell(facts(n), LANE, 1.0, 0.1, now)
        assert told.redeem(facts(n), now + 1.0)
        now += 2.0

    told.tell(facts(1000), LANE, 10.0, 1.0, now)
    assert told.reserved_s(LANE, now) == pytest.approx(10.0)


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr(return_times, "REMEMBERED", 100)
    told = times()
    for n in range(1000):
        told.tell(facts(n), LANE, 1.0, 0.01, 0.0)

    assert len(told) == 100
    assert len(told._by_identity) == 100


def test_nothing_of_what_is_over_is_kept():
    told, rng, now = times(), random.Random(3), 0.0
    for n in range(500):
        told.tell(facts(n % 20), LANE, rng.uniform(0, 20), rng.uniform(0, 0.1), now)
        if rng.random() < 0.5:
            told.redeem(facts(rng.randrange(20)), now)
        now += rng.uniform(0, 0.5)
    now += 100.0
    told.redeem(facts(0), now)

    assert len(told) == 0
    assert not told._by_identity
    assert told.reserved_s(LANE, now) == 0.0
    assert not told._clocks
