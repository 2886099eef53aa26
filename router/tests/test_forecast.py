"""What is known of all endpoints together, and what is not."""

from __future__ import annotations

import pytest

from sluice_router.breaker import Breaker
from sluice_router.cost import Cost
from sluice_router.forecast import KEPT_S, Capacity, Forecasts
from sluice_router.latency_model import MEASURED
from sluice_router.replica import Replica
from sluice_router.types import Endpoint, EngineLoad
from sluice_router.work_ledger import Lease

COST = Cost(prompt_tokens=1000, output_tokens=100, work=1200)


def replica(
    name: str, *, seen: int = MEASURED, tokens_per_s: float = 1000.0, service_s: float = 4.0, busy: int = 0
):
    """One that has served `seen` requests, and has `busy` now."""
    made = Replica(Endpoint(id=name, backend="b", url=f"http://{name}"), Breaker(5, 5.0, 60.0, lambda: 0.5))
    for number in range(seen):
        new = 200 * (number % 5 + 1)
        lease = Lease(new, 100, COST.work, 0.0)
        made.occupy(number, lease)
        made.first_token(lease, new / tokens_per_s)
        made.vacate(lease)
        made.record_service(lease, None, service_s, well=True)
    for number in range(busy):
        made.occupy(number, Lease(1000, 100, COST.work, 0.0))
    return made


def test_the_drain_is_what_leaves_all_of_them_in_a_second():
    capacity = Capacity([replica("a", busy=2), replica("b", busy=1, service_s=2.0)], 0.0)

    assert capacity.drain_work_per_s == pytest.approx(2 * COST.work / 4.0 + COST.work / 2.0)
    assert capacity.wait_s(2400) == pytest.approx(2.0)
    assert capacity.measured


def test_heavy_requests_that_stay_longer_weigh_as_much_as_they_are():
    """Ten light ones of 1 s and one heavy one of 100 s: what is there is nearly all heavy."""
    made = replica("a", seen=0)
    for work, stay_s in [*[(10, 1.0)] * 10, (10_000, 100.0)] * 20:
        lease = Lease(work, 0, work, 0.0)
        made.occupy(0, lease)
        made.vacate(lease)
        made.record_service(lease, None, stay_s, well=True)
    made.occupy(0, Lease(10_000, 0, 10_000, 0.0))

    assert made.drain_work_per_s(100.0) == pytest.approx(100.0, rel=0.05)


@pytest.mark.parametrize("order", [1, -1])
def test_one_endpoint_that_is_not_known_yet_makes_everything_unknown(order):
    pair = [replica("a", busy=1), replica("new", seen=MEASURED - 1, busy=1)][::order]
    capacity = Capacity(pair, 0.0)

    assert not capacity.measured
    assert capacity.fastest is None
    assert capacity.bare_s(COST, 0.0) == 0.0


def test_but_not_one_that_cannot_serve_anyway():
    new = replica("new", seen=0)
    new.healthy = False

    assert Capacity([replica("a"), new], 0.0).measured


def test_the_fastest_says_what_a_prompt_takes_by_itself():
    slow, fast = replica("slow", tokens_per_s=100.0), replica("fast", tokens_per_s=1000.0)
    capacity = Capacity([slow, fast], 0.0)

    assert capacity.fastest is fast
    assert capacity.bare_s(COST, 0.0) == pytest.approx(1.0, rel=0.01)
    assert capacity.slack == 1.0


def test_the_age_of_the_fastest_ones_reading_is_what_counts():
    fast = replica("fast")
    fast.record_load(EngineLoad(running=0), 0.0)

    assert [Capacity([fast], age).slack for age in (0.1, 0.5, 5.0)] == [1.0, 0.8, 0.6]


def test_nothing_seen_is_nothing_known():
    capacity = Capacity([replica("a", seen=0)], 0.0)

    assert capacity.wait_s(100) is None
    assert not capacity.measured


def test_sums_are_kept_for_a_moment_and_forgotten_when_endpoints_change():
    members, lane = [replica("a", busy=1)], frozenset("a")
    forecasts = Forecasts()
    first = forecasts.capacity(members, lane, 0.0)

    assert forecasts.capacity(members, lane, KEPT_S / 2) is first
    second = forecasts.capacity(members, lane, 2 * KEPT_S)
    assert second is not first
    forecasts.forget()
    assert forecasts.capacity(members, lane, 2 * KEPT_S) is not second


def test_what_is_unknown_is_not_kept():
    members, lane = [replica("a", seen=0)], frozenset("a")
    forecasts = Forecasts()

    assert forecasts.capacity(members, lane, 0.0) is not forecasts.capacity(members, lane, 0.0)
