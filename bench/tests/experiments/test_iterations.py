"""Iterations: the same for each side, in turn, after a warm-up that counts nowhere."""

from __future__ import annotations

import math
import statistics
from typing import Any

import pytest

from sluice_bench.experiments.iterations import FIGURES, Iterations, iterate, spread_of, spreads
from sluice_bench.recording.run_record import RunRecord
from sluice_bench.run_load import RunLoad
from sluice_bench.runs.measured_run import RunSettings
from sluice_bench.target import Target
from sluice_bench.workload import Asking
from sluice_bench.workloads import suites
from sluice_bench.workloads.corpus import load_corpus

from ..recording.invented_run import small_run


def load(count: int, seed: int) -> RunLoad:
    return RunLoad(workload=suites.build(load_corpus(), "short", count, seed), schedule=None)


def settings(port: int) -> RunSettings:
    target = Target(host="127.0.0.1", port=port)
    return RunSettings(target=target, asking=Asking(model="m"), load=load(1, 0), concurrency=1)


def test_sides_get_the_same_in_each_iteration_and_take_turns() -> None:
    asked: list[tuple[int, int, str]] = []

    def measure_one(side: RunSettings, what: str) -> RunRecord:
        workload = side.load.workload
        asked.append((side.target.port, len(workload.items), workload.sha256))
        return small_run()

    plan = Iterations(count=8, requests=5, warm_up=2, seed=3, load_of=load)
    runs = iterate(plan, {"a": settings(1), "b": settings(2)}, measure_one)

    warm, measured = asked[:2], asked[2:]
    assert [(port, count) for port, count, _ in warm] == [(1, 2), (2, 2)]
    assert {count for _, count, _ in measured} == {5}
    rounds = [measured[at : at + 2] for at in range(0, 16, 2)]
    for first, second in rounds:
        assert {first[0], second[0]} == {1, 2}
        assert first[2] == second[2]
    assert len({first[2] for first, _ in rounds}) == 8
    assert {first[0] for first, _ in rounds} == {1, 2}
    assert [len(found) for found in runs.values()] == [8, 8]


def test_no_warm_up_is_none() -> None:
    asked: list[str] = []

    def measure_one(side: RunSettings, what: str) -> RunRecord:
        asked.append(what)
        return small_run()

    iterate(Iterations(count=1, requests=2, warm_up=0, seed=1, load_of=load), {"a": settings(1)}, measure_one)

    assert asked == ["a, 1 of 1"]


def test_a_spread_is_mean_median_and_deviation_of_the_sample() -> None:
    values = [1.0, 2.0, 10.0]
    spread = spread_of(values)

    assert (spread.count, spread.median) == (3, 2.0)
    assert spread.mean == pytest.approx(13 / 3)
    assert spread.std == pytest.approx(math.sqrt(sum((value - 13 / 3) ** 2 for value in values) / 2))
    assert spread.std == pytest.approx(statistics.stdev(values))
    assert spread_of([4.0]).std is None
    with pytest.raises(ValueError, match="nothing"):
        spread_of([])


def test_figures_that_a_run_does_not_have_are_left_out() -> None:
    run = small_run()
    found = spreads([run, run])

    assert set(found) <= set(FIGURES)
    assert found["TTFT p50 ms"].median == run.summary.ttft_user_ms.p50  # type: ignore[union-attr]
    assert found["TTFT p50 ms"].std == 0.0
    known: Any = {name for name, figure in FIGURES.items() if figure(run.summary) is not None}
    assert set(found) == known
