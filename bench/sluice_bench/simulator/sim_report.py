"""All simulations of the router's report, and the statistics of the traffic that they are of."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from sluice_bench.environment import Environment, describe
from sluice_bench.simulator.fit_report import FitRecord
from sluice_bench.simulator.scenario import Scenario, compared
from sluice_bench.simulator.sim_figures import SimFigures
from sluice_bench.simulator.sim_plan import Question
from sluice_bench.simulator.traffic import TrafficShape
from sluice_bench.workloads import preset_plan
from sluice_bench.workloads.presets import PRESETS, PresetName

PACKAGES = ("sluice-router", "sluice-bench", "numpy", "msgspec")
_SAMPLE = 20_000
_TRACE_REQUESTS: dict[str, int] = {"kimi-conv": 12_031, "kimi-toolagent": 23_608, "reasoning": 10_812}
"""Reuse grows with the number of requests, so it is compared at the trace's own."""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One simulation."""

    question: str
    value: str
    """Of what the question varies."""
    figures: SimFigures


class Statistic(msgspec.Struct, frozen=True, kw_only=True):
    """Of a preset: published of the trace, and achieved by the generator."""

    preset: str
    name: str
    published: float
    achieved: float


class SimReport(msgspec.Struct, frozen=True, kw_only=True):
    """What is in the JSON file beside the page."""

    command: str
    measured_at: str
    environment: Environment
    quick: bool
    replicas: int
    seconds: float
    seeds: int
    results: list[Result]
    statistics: list[Statistic]
    speed: SimFigures | None = None
    speed_replicas: int = 0
    speed_compiled: bool = False
    """The router was machine code there."""
    fits: list[FitRecord] = []


def statistics_of(presets: Sequence[PresetName], seed: int) -> list[Statistic]:
    """Published and achieved, side by side."""
    found = []
    for name in presets:
        planned = preset_plan.plan(name, max(_SAMPLE, _TRACE_REQUESTS.get(name, 0)), seed)
        achieved = preset_plan.achieved(planned, preset_plan.schedule(name, 100_000, seed))
        achieved["reused"] = preset_plan.reused_share(planned[: _TRACE_REQUESTS.get(name)])
        found += [
            Statistic(preset=name, name=what, published=published, achieved=achieved[what])
            for what, published in PRESETS[name].published.items()
        ]
    return found


def carry_out(
    asked: Sequence[Question],
    seeds: int,
    clock: Callable[[], int],
    on_step: Callable[[str], None],
) -> list[Result]:
    """Every policy of every scenario with every seed."""
    results = []
    for question in asked:
        for value, scenario in question.scenarios:
            results += [
                Result(question=question.name, value=value, figures=found)
                for found in compared(scenario, question.policies, seeds, clock, on_step)
            ]
    return results


def number_of_steps(asked: Sequence[Question]) -> int:
    """How many steps `carry_out` names."""
    return sum(len(question.scenarios) * len(question.policies) for question in asked)


def speed_scenario(replicas: int, seconds: float) -> Scenario:
    """A large fleet, to see what simulating it costs."""
    return Scenario(
        name="speed",
        traffic=TrafficShape(preset="chat-azure24"),
        load=0.8,
        replicas=replicas,
        seconds=seconds,
    )


def environment() -> Environment:
    """Of this machine, with the packages that matter here."""
    return describe(PACKAGES)
