"""Several gateways in front of the same engines, with nothing shared."""

import random

import pytest

from sluice_router.neighbours import LEAST, Neighbours
from sluice_router.router import Router
from sluice_router.service_model import ServiceModel
from sluice_router.types import Endpoint, EngineLoad, RequestFacts
from sluice_router.work_ledger import Lease, WorkLedger


def facts(tokens: int = 1000) -> RequestFacts:
    return RequestFacts(
        request_id="r", kind="chat", model="m", tenant="t", prompt_tokens_estimate=tokens, stream=True
    )


def reading(**numbers: int) -> EngineLoad:
    said = {"running": 0, "waiting": 0, "waiting_uncached_tokens": 0, "max_running": 256, **numbers}
    return EngineLoad(**said)  # type: ignore[arg-type]


def test_who_is_alone_has_all_of_the_room():
    alone = Neighbours()
    for present in (0, 1, 50, 3):
        alone.note(present, present, full=True)

    assert alone.alone
    assert alone.part(800.0) == pytest.approx(800.0 / alone.crowding)


def test_a_request_that_the_engine_still_counts_is_nobody_elses():
    almost = Neighbours()
    for _ in range(50):
        almost.note(19, 20, full=False)

    assert almost.alone


def test_the_share_is_that_of_what_is_in_flight_everywhere():
    quarter = Neighbours()
    for own, present in [(0, 10), (5, 10), (1, 4), (3, 12), (1, 4)] * 40:
        quarter.note(own, present, full=True)

    assert quarter.share == pytest.approx(0.25, abs=0.02)
    assert quarter.part(1000.0) == pytest.approx(250.0, rel=0.1)


def test_where_all_have_room_nobody_is_rationed_and_the_fuller_they_are_the_more():
    parts = []
    for full in (0, 1, 2, 4):
        some = Neighbours()
        for turn in range(400):
            some.note(1, 4, full=turn % 4 < full)
        parts.append(some.part(1000.0))

    assert parts[0] > 100_000.0
    assert parts == sorted(parts, reverse=True)
    assert parts[-1] == pytest.approx(250.0, rel=0.05)


def test_an_empty_share_is_not_none():
    guest = Neighbours()
    guest.note(0, 100, full=True)

    assert guest.share == LEAST
    assert not guest.alone


def test_all_gateways_together_fill_an_engine_that_was_full_with_what_it_has_room_for():
    """Sixteen gateways, each with as many requests as it likes, and ten engines that are full but for one."""
    source = random.Random(7)
    placed = 0
    endpoints = [Endpoint(id=f"e{n}", backend="b", url="http://e", max_in_flight=256) for n in range(10)]
    for _ in range(16):
        gateway = Router(endpoints, max_queue=100, queue_timeout_s=30.0, random=source.random)
        for replica in gateway._replicas.values():
            replica.ledger.take(Lease(1000, 0, 1000, 0.0))
        for second in range(60):  # 8,000 tokens a second each, and never an empty queue
            for name in gateway._replicas:
                gateway.record_load(
                    name,
                    reading(
                        running=14,
                        waiting=2,
                        waiting_uncached_tokens=16_000,
                        prefix_queried_tokens=8000 * second,
                        prefix_hit_tokens=0,
                    ),
                    float(second),
                )
        assert gateway._neighbours.share == pytest.approx(1 / 16, rel=0.01)
        gateway.record_load(
            "e0",
            reading(
                running=16, waiting_uncached_tokens=1, prefix_queried_tokens=480_000, prefix_hit_tokens=0
            ),
            60.0,
        )
        for _ in range(100):
            if gateway.admit(facts(), 60.0, lambda: None).endpoint is not None:
                placed += 1

    # Room for half a second: 4,000 tokens, of which one gateway's part is a quarter of a request.
    assert 1 <= placed <= 12


def test_what_others_queued_is_computed_meanwhile():
    ledger = WorkLedger(10.0)
    ledger.alone = False
    for second in range(8):
        load = reading(
            running=5, waiting_uncached_tokens=4000, prefix_queried_tokens=4000 * second, prefix_hit_tokens=0
        )
        ledger.record(load, float(second))
    ledger._inflow = 0.0

    assert ledger.prefill_tokens_per_s == pytest.approx(4000.0)
    assert ledger.new_tokens_queued(7.0) == 4000
    assert ledger.new_tokens_queued(7.5) == 2000
    assert ledger.new_tokens_queued(9.0) == 0


def test_what_is_cached_is_not_computed():
    ledger = WorkLedger(10.0)
    for second in range(40):
        load = reading(
            waiting_uncached_tokens=100, prefix_queried_tokens=4000 * second, prefix_hit_tokens=3000 * second
        )
        ledger.record(load, float(second))

    assert ledger.prefill_tokens_per_s == pytest.approx(1000.0)
    assert ledger.hit_share == pytest.approx(0.75, abs=0.01)


def test_an_engine_that_was_started_anew_is_measured_anew():
    ledger = WorkLedger(10.0)
    for second, queried in enumerate((0, 4000, 8000, 100)):
        ledger.record(
            reading(prefix_queried_tokens=queried, prefix_hit_tokens=0, prompt_tokens=queried), float(second)
        )

    assert ledger.prefill_tokens_per_s == 0.0


def test_peers_stand_in_until_an_endpoint_is_measured_itself():
    peers = ServiceModel()
    busy, quiet = ServiceModel(peers), ServiceModel(peers)
    for _ in range(10):
        busy.learn(100, 2.0)

    assert quiet.measured
    assert quiet.drain_work_per_s(200.0) == pytest.approx(100.0)
    for _ in range(10):
        quiet.learn(100, 1.0)
    assert quiet.drain_work_per_s(200.0) == pytest.approx(200.0)
    assert busy.drain_work_per_s(200.0) == pytest.approx(100.0)
