"""One question to the simulator, and how it is asked: so many engines, this traffic at this load, these
policies.

Load is the offered rate over the fleet's capacity (`ideal.py`): at 2 there is twice as much as the fleet
could bear with an ideal prefix cache.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import msgspec

from sluice_bench.simulator.engine_shape import SHAPES, EngineShape
from sluice_bench.simulator.faults import Fault
from sluice_bench.simulator.fleet import Fleet, FleetSettings, Make, make_balancer
from sluice_bench.simulator.ideal import capacity_per_s, mean_cycle_s
from sluice_bench.simulator.sim_figures import SimFigures, figures
from sluice_bench.simulator.traffic import TrafficShape

REPLICAS_EACH = 8
"""Engines that a preset's groups are meant for (llm-d's benchmark has eight): a larger fleet gets copies."""
WARM_UP_LOAD = 0.6
"""No fleet meets twice its capacity with empty caches and routers that have seen nothing yet."""


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """What is the same for all policies."""

    name: str
    traffic: TrafficShape
    load: float
    replicas: int = 32
    gateways: int = 1
    seconds: float = 60.0
    """Of arrivals that count."""
    warm_up_s: float = 60.0
    """Of arrivals before them, at `WARM_UP_LOAD` or less."""
    shape: str = "h100-8b"
    scrape_s: float = 1.0
    faults: tuple[Fault, ...] = ()
    patience_s: float | None = None
    hedging: bool = True

    @property
    def engine(self) -> EngineShape:
        """Raises `ValueError` for a shape that there is not."""
        if self.shape not in SHAPES:
            raise ValueError(f"there is no engine shape {self.shape!r}; there are {', '.join(SHAPES)}")
        return SHAPES[self.shape]


def fleet_traffic(shape: TrafficShape, replicas: int, engine: EngineShape) -> TrafficShape:
    """With a copy for every eight engines, and prompts that fit."""
    fit = min(engine.kv_tokens // 4, shape.fit or engine.kv_tokens)
    return msgspec.structs.replace(shape, copies=max(1, replicas // REPLICAS_EACH), fit=fit)


def offered_per_s(scenario: Scenario, seed: int = 1) -> float:
    """Requests a second at the scenario's load. Raises `ValueError`."""
    engine, replicas = scenario.engine, scenario.replicas
    traffic = fleet_traffic(scenario.traffic, replicas, engine)
    return scenario.load * capacity_per_s(engine, traffic, replicas, seed)


def fleet_settings(scenario: Scenario, policy: str, seed: int) -> FleetSettings:
    """Of one simulation. Raises `ValueError`."""
    engine, replicas = scenario.engine, scenario.replicas
    traffic = fleet_traffic(scenario.traffic, replicas, engine)
    rate = offered_per_s(scenario, seed)
    warm_rate = rate * min(1.0, WARM_UP_LOAD / scenario.load)
    warm = max(1, round(warm_rate * scenario.warm_up_s))
    cycle_s = mean_cycle_s(engine, traffic, seed)
    return FleetSettings(
        policy=policy,
        traffic=traffic,
        shape=engine,
        replicas=replicas,
        gateways=scenario.gateways,
        rate_per_s=rate if cycle_s is None else rate * cycle_s,
        requests=warm + max(10, round(rate * scenario.seconds)),
        warm_up_requests=warm,
        warm_up_rate_per_s=warm_rate if cycle_s is None else None,
        seed=seed,
        scrape_s=scenario.scrape_s,
        faults=scenario.faults,
        patience_s=scenario.patience_s,
        hedging=scenario.hedging,
    )


def simulate(
    settings: FleetSettings, load: float, clock: Callable[[], int], balancer: Make = make_balancer
) -> SimFigures:
    """Run it once. `load` is only noted; `clock` gives real nanoseconds. Raises `ValueError`."""
    fleet = Fleet(settings, clock, balancer)
    with _uncollected():
        started = clock()
        fleet.run()
        real_s = (clock() - started) / 1e9
    return figures(fleet, load, real_s)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without a garbage collector's passes over millions of objects, of which hardly any are in cycles."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def compared(
    scenario: Scenario,
    policies: Sequence[str],
    seeds: int,
    clock: Callable[[], int],
    on_step: Callable[[str], None],
) -> Iterator[SimFigures]:
    """All policies, each with all seeds. Raises `ValueError`."""
    asked = [fleet_settings(scenario, "", seed) for seed in range(1, seeds + 1)]
    for policy in policies:
        on_step(f"{scenario.name}, load {scenario.load:g}: {policy}")
        for settings in asked:
            yield simulate(msgspec.structs.replace(settings, policy=policy), scenario.load, clock)
