"""A simulated fleet loses nothing, repeats itself, and stays within what is possible."""

from __future__ import annotations

import math
from itertools import count
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice_bench.simulator.engine_shape import SHAPES
from sluice_bench.simulator.faults import Fault
from sluice_bench.simulator.fleet import POLICIES, SLUICE, Fleet, FleetSettings
from sluice_bench.simulator.ideal import capacity_per_s, most_good
from sluice_bench.simulator.sim_figures import SimFigures, figures, is_good
from sluice_bench.simulator.tally import BROKEN, COMPLETE, LEFT
from sluice_bench.simulator.traffic import TrafficShape
from sluice_bench.stats.percentile import percentile_of
from sluice_bench.workloads.presets import PRESETS
from sluice_router.router import Router
from sluice_router.types import Endpoint, EngineLoad

SHAPE = SHAPES["small"]
TRAFFIC = TrafficShape(preset="qwen-api", fit=2048)


class Wrapped:
    """A router, with something added. A subclass will not do: the class may be compiled."""

    def __init__(self, router: Router) -> None:
        self.router = router

    def __getattr__(self, name: str) -> Any:
        return getattr(self.router, name)


def fleet(policy: str = SLUICE, load: float = 1.0, **changes: Any) -> Fleet:
    traffic = changes.pop("traffic", TRAFFIC)
    base: dict[str, Any] = {
        "policy": policy, "traffic": traffic, "shape": SHAPE, "replicas": 4, "requests": 200, "seed": 1,
    } | changes  # fmt: skip
    if "rate_per_s" not in base:
        base["rate_per_s"] = load * capacity_per_s(SHAPE, traffic, base["replicas"], 1)
    ticks = count()
    return Fleet(FleetSettings(**base), lambda: next(ticks))


def run(*arguments: Any, **changes: Any) -> tuple[Fleet, SimFigures]:
    made = fleet(*arguments, **changes)
    made.run()
    return made, figures(made, 1.0, 0.0)


def assert_nothing_is_left(made: Fleet) -> None:
    assert made.tally.open == 0
    assert all(made.tally.ending)
    for engine in made.engines:
        assert engine.kv.held(engine.step) == engine.running == len(engine.waiting) == 0
        assert engine.queued_tokens == 0
        assert 0 <= engine.kv.cached <= engine.kv.capacity
    for gateway in made.gateways:
        assert not any(gateway.backlog.values())
        balancer = gateway.balancer
        if isinstance(balancer, Router):
            snapshot = balancer.snapshot()
            assert snapshot.waiting == 0
            assert sum(snapshot.outcomes.values()) == snapshot.admitted
            assert all(replica.in_flight == 0 for replica in snapshot.replicas)
        else:
            assert not balancer.view.in_flight.any()  # type: ignore[attr-defined]
            assert not balancer.view.prefill_tokens.any()  # type: ignore[attr-defined]


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_ends_every_request_and_gives_everything_back(policy: str) -> None:
    made, found = run(policy, load=1.2)

    assert_nothing_is_left(made)
    assert found.endings == {COMPLETE: 200}
    assert 0.05 < found.hit_rate < 0.7


faults = st.lists(
    st.builds(
        Fault,
        kind=st.sampled_from(["death", "stall", "slow", "metrics"]),
        share=st.floats(0.1, 1.0),
        start_s=st.floats(0.0, 10.0),
        seconds=st.floats(0.1, 10.0),
    ),
    max_size=3,
)


@settings(max_examples=25, deadline=None)
@given(
    policy=st.sampled_from(POLICIES),
    gateways=st.integers(1, 3),
    load=st.floats(0.3, 4.0),
    queue=st.integers(0, 30),
    patience=st.sampled_from([None, 0.5, 5.0]),
    struck=faults,
    seed=st.integers(0, 99),
)
def test_nothing_is_lost_whatever_goes_wrong(
    policy: str,
    gateways: int,
    load: float,
    queue: int,
    patience: float | None,
    struck: list[Fault],
    seed: int,
) -> None:
    traffic = msgspec.structs.replace(
        TRAFFIC,
        tenants=(5, 1, 1),
        classes={"interactive": 1, "default": 1, "bulk": 1},
        clients={"leave": 1, "obey": 1, "hammer": 1},
    )
    made, found = run(
        policy, load, traffic=traffic, gateways=gateways, patience_s=patience, max_queue=queue,
        queue_timeout_s=3.0, faults=tuple(struck), requests=80, seed=seed,
    )  # fmt: skip

    assert_nothing_is_left(made)
    assert sum(found.endings.values()) == 80
    assert found.endings.get(LEFT, 0) == 0 or patience is not None
    assert found.endings.get(BROKEN, 0) == 0 or any(fault.kind == "death" for fault in struck)


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_every_preset_runs(preset: Any) -> None:
    traffic = TrafficShape(preset=preset, fit=2048)
    users = {"rate_per_s": 8.0} if PRESETS[preset].sessions else {}
    made, found = run(traffic=traffic, requests=60, warm_up_requests=12, **users)

    assert_nothing_is_left(made)
    assert found.requests == 48


def test_warming_up_is_slower_and_in_no_figure() -> None:
    made, found = run(load=3.0, requests=150, warm_up_requests=50, warm_up_rate_per_s=2.0)
    warm, rest = made.tally.arrived[:50], made.tally.arrived[50:]

    assert found.requests == 100
    assert 15 < warm[-1] < 40
    assert rest[0] > warm[-1]
    assert rest[-1] - rest[0] < 12
    only = found.classes["interactive"]
    assert only.ttft_p50_s == percentile_of(sorted(made.tally.ttft[50:]), 0.5)


def test_a_seed_is_a_run() -> None:
    traffic = msgspec.structs.replace(TRAFFIC, clients={"obey": 1, "hammer": 1})

    def once(seed: int) -> bytes:
        _, found = run("power-of-two", 1.5, traffic=traffic, gateways=2, seed=seed)
        return msgspec.json.encode(msgspec.structs.replace(found, seed=0, decisions_s=0, admit_p99_us=0))

    assert once(3) == once(3)
    assert once(3) != once(4)


@pytest.mark.parametrize("policy", [SLUICE, "dual-hash", "random"])
@pytest.mark.parametrize("load", [0.5, 2.0, 6.0])
def test_nobody_serves_more_than_there_is_capacity_for(policy: str, load: float) -> None:
    requests = 1500 if load == 6 else 200
    made, found = run(policy, load, max_queue=20, requests=requests)
    good = [number for number in range(requests) if is_good(made.tally, number)]

    assert len(good) <= most_good(made.tally, made.events.now, 4, SHAPE)
    assert min(1, 0.6 / load) <= found.ideal <= 1
    assert found.ideal < 0.8 or load < 6


def test_the_bound_is_what_can_be_served_in_that_time() -> None:
    made, _ = run(load=0.5)
    tally = made.tally
    alone = [
        (tally.prompt[n] - tally.shared[n]) / 2000 + (tally.output[n] - 1) * (0.002 + 0.02 / 32)
        for n in range(200)
    ]

    assert most_good(tally, 1e9, 1, SHAPE) == 200
    for served in (1, 50, 199):
        seconds = sum(sorted(alone)[:served])
        assert most_good(tally, seconds / 2 + 1e-6, 2, SHAPE) == served


def test_a_dead_replica_breaks_streams_and_others_are_tried_elsewhere() -> None:
    death = Fault(kind="death", share=0.25, start_s=2.0, seconds=3.0)
    made, found = run(load=0.8, faults=(death,), requests=300)

    assert 0 < found.endings[BROKEN] < 60
    assert found.endings[COMPLETE] > 200
    assert_nothing_is_left(made)
    broken = [n for n, ending in enumerate(made.tally.ending) if ending == BROKEN]
    assert all(not math.isnan(made.tally.ttft[n]) for n in broken)


def test_a_slow_node_and_a_stalled_one_take_longer() -> None:
    def ttft(*struck: Fault) -> float:
        _, found = run("round-robin", 0.4, faults=struck)
        (only,) = found.classes.values()
        assert only.ttft_p99_s is not None
        return only.ttft_p99_s

    well = ttft()
    assert ttft(Fault(kind="slow", share=0.5, start_s=0.0, seconds=1000)) > 1.5 * well
    assert ttft(Fault(kind="stall", share=0.25, start_s=2.0, seconds=4.0)) > 3.0


def test_without_metrics_only_own_requests_count() -> None:
    readings: list[int] = []
    made = fleet(faults=(Fault(kind="metrics", share=0.5, start_s=0.0, seconds=1e6),))

    class Listening(Wrapped):
        def record_load(self, endpoint_id: str, load: EngineLoad, now: float) -> None:
            readings.append(int(endpoint_id[7:]))
            self.router.record_load(endpoint_id, load, now)

    made.gateways[0].balancer = Listening(made.gateways[0].balancer)
    made.run()

    assert set(readings) == {2, 3}


def test_obeying_clients_come_back_when_they_are_told_to() -> None:
    traffic = msgspec.structs.replace(TRAFFIC, clients={"obey": 1})
    made, found = run(load=4.0, traffic=traffic, max_queue=2)

    assert found.obeyed > 5
    assert found.honesty is not None
    assert 0 <= found.honesty <= 1
    assert found.refusals["shed_capacity"] >= found.endings.get("shed_capacity", 0)
    later = [made.tally.ttft[n] for n in range(200) if made.tally.ending[n] == COMPLETE]
    assert max(later) > 1.0, "waiting to be allowed to come back counts"


def test_a_preset_with_sessions_asks_the_next_round_after_the_answer() -> None:
    made, found = run(traffic=TrafficShape(preset="agent-coding", fit=4096), rate_per_s=4.0, requests=80)

    assert_nothing_is_left(made)
    assert found.hit_rate > 0.5
    assert max(made.tally.arrived) > 10.0


def test_routers_that_share_state_do_so_except_while_they_cannot() -> None:
    told: list[tuple[int, float, int]] = []

    numbers = count()

    class Sharing(Wrapped):
        def __init__(self, router: Router) -> None:
            super().__init__(router)
            self.number = next(numbers)

        def export_delta(self, now: float) -> int:
            return self.number

        def apply_delta(self, delta: int, now: float) -> None:
            told.append((self.number, now, delta))

    def balancer(settings: FleetSettings, _: object) -> Any:
        ids = [f"engine-{place}" for place in range(settings.replicas)]
        endpoints = [Endpoint(id=name, backend="engine", url="http://e.invalid") for name in ids]
        return Sharing(Router(endpoints, max_queue=10, queue_timeout_s=9.0))

    outage = Fault(kind="sync", share=1.0, start_s=1.0, seconds=2.0)
    settings = fleet(gateways=3, faults=(outage,)).settings
    Fleet(settings, lambda: 0, balancer).run()

    times = sorted({round(now, 1) for _, now, _ in told})
    assert times[:5] == [0.2, 0.4, 0.6, 0.8, 3.0]
    assert {(to, origin) for to, _, origin in told} == {(a, b) for a in range(3) for b in range(3) if a != b}


STILL = tuple(Fault(kind="stall", share=0.25, start_s=40.0 * n, seconds=5.0) for n in range(1, 60))
"""Every now and then one engine of four stands still."""


def test_hedges_answer_for_an_engine_that_stands_still_and_nothing_is_left() -> None:
    late: dict[bool, int] = {}
    for hedging in (False, True):
        made, found = run(hedging=hedging, load=0.4, requests=6000, faults=STILL)
        assert_nothing_is_left(made)
        late[hedging] = sum(ttft > 4.0 for ttft in made.tally.ttft)
        begun = sum(found.hedges[name] for name in ("won", "lost", "failed", "left"))
        assert (begun > 0) is hedging
        assert begun <= 0.02 * 6000
        assert found.hedged_work <= 0.02
    assert late[True] < late[False] / 2


def test_engines_that_pause_do_so_at_random(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sluice_bench.simulator.fleet.PAUSES_EVERY_S", 30.0)
    pauses = Fault(kind="pauses", share=1.0, start_s=0.0, seconds=10_000.0)
    worst = [
        max(run(load=0.3, requests=2000, faults=f, hedging=False)[0].tally.ttft) for f in ((), (pauses,))
    ]
    assert worst[1] > worst[0] + 2.0


def test_an_engine_that_dies_with_a_first_attempt_leaves_the_second() -> None:
    deaths = tuple(Fault(kind="death", share=0.25, start_s=40.0 * n + 2.0, seconds=1.0) for n in range(1, 9))
    made, found = run(load=0.4, requests=3000, faults=(*STILL[:8], *deaths), patience_s=6.0)
    assert_nothing_is_left(made)
    assert found.hedges["won"] > 0
