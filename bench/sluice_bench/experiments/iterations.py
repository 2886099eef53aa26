"""One load several times: warm-up, iterations, and the mean, median and standard deviation of each figure.

Every iteration asks the same prompts behind other tags, so that a prefix cache knows none of them; how much
there is to do stays the same. Warm-up requests have tags of their own and are in no figure. Of two servers
both are asked the same in each iteration, in an order drawn for it.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Mapping, Sequence

import msgspec

from sluice_bench.metrics import Distribution, Summary
from sluice_bench.recording.run_record import RunRecord
from sluice_bench.run_load import RunLoad
from sluice_bench.runs.measured_run import RunSettings

_SEEDS = 1000

FIGURES: Mapping[str, Callable[[Summary], float | None]] = {
    "output tokens/s": lambda summary: summary.whole.tokens_per_s if summary.whole else None,
    "TTFT p50 ms": lambda summary: _p50(summary.ttft_user_ms),
    "TTFT mean ms": lambda summary: _mean(summary.ttft_user_ms),
    "TPOT p50 ms": lambda summary: _p50(summary.tpot_ms),
    "E2E p50 ms": lambda summary: _p50(summary.e2e_ms),
    "goodput": lambda summary: summary.goodput_share,
}
"""What an iteration is summed up in."""


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """Of one figure over iterations."""

    count: int
    mean: float
    median: float
    std: float | None
    """Of the sample (n - 1); `None` of a single iteration."""


class Iterations(msgspec.Struct, frozen=True, kw_only=True):
    """How often, after what."""

    count: int
    requests: int
    """Of each."""
    warm_up: int
    """Requests before the first iteration."""
    seed: int
    load_of: Callable[[int, int], RunLoad]
    """From a number of requests and a seed."""

    def load(self, iteration: int) -> RunLoad:
        """What is asked in an iteration."""
        return self.load_of(self.requests, self.seed * _SEEDS + iteration + 1)

    def warm_up_load(self) -> RunLoad:
        """What is asked before."""
        return self.load_of(self.warm_up, self.seed * _SEEDS)


def iterate(
    iterations: Iterations,
    sides: Mapping[str, RunSettings],
    measure_one: Callable[[RunSettings, str], RunRecord],
) -> dict[str, list[RunRecord]]:
    """The runs of each side; `measure_one` is told what it is that it measures."""
    if iterations.warm_up:
        for name, settings in sides.items():
            warm = msgspec.structs.replace(settings, load=iterations.warm_up_load())
            measure_one(warm, f"{name}, warm-up")
    runs: dict[str, list[RunRecord]] = {name: [] for name in sides}
    for iteration in range(iterations.count):
        load = iterations.load(iteration)
        for name in random.Random(iteration).sample(list(sides), len(sides)):
            settings = msgspec.structs.replace(sides[name], load=load)
            runs[name].append(measure_one(settings, f"{name}, {iteration + 1} of {iterations.count}"))
    return runs


def spreads(runs: Sequence[RunRecord]) -> dict[str, Spread]:
    """Of each figure that every run has."""
    found = {}
    summaries = [run.summary for run in runs]
    for name, figure in FIGURES.items():
        values = [value for summary in summaries if (value := figure(summary)) is not None]
        if values and len(values) == len(summaries):
            found[name] = spread_of(values)
    return found


def spread_of(values: Sequence[float]) -> Spread:
    """Raises `ValueError` without values."""
    if not values:
        raise ValueError("a spread of nothing")
    return Spread(
        count=len(values),
        mean=math.fsum(values) / len(values),
        median=statistics.median(values),
        std=statistics.stdev(values) if len(values) > 1 else None,
    )


def _p50(found: Distribution | None) -> float | None:
    return None if found is None else found.p50


def _mean(found: Distribution | None) -> float | None:
    return None if found is None else found.mean
