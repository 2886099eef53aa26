"""A simulated fleet with faults, whose routers' decisions are written down and made again."""

from __future__ import annotations

import random
from itertools import count

from sluice_bench.simulator.engine_shape import SHAPES
from sluice_bench.simulator.faults import Fault
from sluice_bench.simulator.fleet import SLUICE, Fleet, FleetSettings
from sluice_bench.simulator.ideal import capacity_per_s
from sluice_bench.simulator.sim_figures import figures
from sluice_bench.simulator.traffic import MODEL, TrafficShape
from sluice_router.decision_replay import replay
from sluice_router.recorded_router import RecordedRouter
from sluice_router.router_options import Options
from sluice_router.types import Endpoint

SHAPE = SHAPES["small"]
TRAFFIC = TrafficShape(preset="b2b-prefix", fit=2048)
ASKED = FleetSettings(
    policy=SLUICE,
    traffic=TRAFFIC,
    shape=SHAPE,
    replicas=20,
    rate_per_s=2.0 * capacity_per_s(SHAPE, TRAFFIC, 20, 1),
    requests=600,
    seed=3,
    faults=(Fault(kind="death", share=0.2, start_s=2.0, seconds=5.0),),
)


def test_an_overloaded_fleet_with_dying_engines_is_replayed_and_recording_changes_no_figure():
    log: list[bytes] = []

    def recorded(settings: FleetSettings, source: random.Random) -> RecordedRouter:
        endpoints = [
            Endpoint(
                id=f"engine-{place}",
                backend="engine",
                url=f"http://engine-{place}.invalid",
                models=(MODEL,),
                max_in_flight=settings.shape.max_running,
                hedging=True,
            )
            for place in range(settings.replicas)
        ]
        options = Options(max_queue=settings.max_queue, queue_timeout_s=settings.queue_timeout_s)
        return RecordedRouter(endpoints, log.append, random=source.random, options=options)

    ticks, other_ticks = count(), count()
    plain = Fleet(ASKED, lambda: next(ticks))
    written = Fleet(ASKED, lambda: next(other_ticks), recorded)
    plain.run()
    written.run()

    replayed = replay(log)

    assert figures(written, 1.0, 0.0) == figures(plain, 1.0, 0.0)
    assert replayed.difference is None
    assert replayed.decisions > ASKED.requests
    assert any(b'"line":"drawn"' in line for line in log)
    assert any(b'"shed_' in line for line in log)
    assert any(b'"name":"retry"' in line for line in log)
