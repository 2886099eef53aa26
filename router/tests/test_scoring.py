"""What a candidate costs."""

from __future__ import annotations

import pytest

from sluice_router.breaker import Breaker
from sluice_router.replica import Replica
from sluice_router.scoring import (
    BARRIER,
    COOLEST,
    OWNER,
    SLOW_START_S,
    Considered,
    barrier,
    scores,
    warmth,
)
from sluice_router.types import Endpoint


def one(*, new: int = 1000, queued: int = 0, running: int = 0, kv: float | None = None, size: int = 64):
    endpoint = Endpoint(id="e", backend="b", url="http://e", max_in_flight=size)
    replica = Replica(endpoint, Breaker(5, 5.0, 60.0, lambda: 0.5))
    return Considered(replica, OWNER, 0, new, queued, running, kv)


def score(*considered: Considered, now: float = 0.0) -> list[float]:
    return [found.score for found in scores(considered, now)]


def test_it_is_the_product_of_the_work_ahead_and_the_batch():
    assert score(one(new=300, queued=700, running=4)) == [5000.0]


def test_a_cached_prefix_wins_where_loads_are_alike_and_an_idle_endpoint_where_they_are_not():
    cached, cold = score(one(new=100, running=3), one(new=1000, running=3))
    assert cached < cold

    cached, idle = score(one(new=100, running=19), one(new=1000, running=0))
    assert idle < cached


def test_a_larger_endpoint_bears_a_larger_batch():
    small, large = score(one(running=1, size=2), one(running=7, size=16))
    assert large < small


def test_a_full_cache_is_a_barrier_that_grows_without_bound():
    assert barrier(0.0) == 0.0
    assert barrier(0.5) == BARRIER
    assert barrier(0.9) == pytest.approx(9 * BARRIER)
    assert barrier(1.7) == barrier(0.999) < float("inf")


def test_who_does_not_tell_his_cache_is_like_the_others():
    known, unknown, other = score(one(kv=0.5), one(kv=None), one(kv=0.7))
    assert known < unknown < other
    assert score(one(kv=None), one(kv=None)) == [1000.0, 1000.0]


def test_who_has_just_come_back_gets_a_tenth_of_his_load_and_then_more_and_more():
    assert warmth(100.0, 100.0) == COOLEST
    assert warmth(100.0, 100.0 + SLOW_START_S / 2) == 0.5
    assert warmth(100.0, 100.0 + 2 * SLOW_START_S) == 1.0
    assert warmth(float("-inf"), 0.0) == 1.0

    back = one()
    back.replica.recovered_at = 0.0
    assert score(back, now=SLOW_START_S / 2) == [2000.0]
