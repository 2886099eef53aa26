"""Figures of the report are taken from the right rows, seed by seed."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from sluice_bench.environment import describe
from sluice_bench.simulator.router_figures import figures
from sluice_bench.simulator.sim_figures import ClassFigures, SimFigures
from sluice_bench.simulator.sim_report import Result, SimReport

CLASS = ClassFigures(requests=9, goodput=0.5, ttft_p50_s=1.0, ttft_p90_s=1.0, ttft_p99_s=4.0, max_wait_s=3.0)
BASE = SimFigures(
    policy="sluice", seed=1, load=1, requests=9, goodput=0.5, ideal=0.5, classes={"interactive": CLASS},
    itl_p99_s=0.1, hit_rate=0.0, endings={"complete": 9}, refusals={}, honesty=None, obeyed=0, jain=1.0,
    max_gap_tokens=0.0, others_ttft_p95_s=2.0, load_cv=0.0, wasted_prefill=0.0, preemptions=0,
    admit_p50_us=40.0, admit_p99_us=900.0, decisions_s=10.0, engine_s=20.0,
)  # fmt: skip


def result(question: str, value: str, **changes: Any) -> Result:
    return Result(question=question, value=value, figures=msgspec.structs.replace(BASE, **changes))


def made(*results: Result, speed: SimFigures | None = None) -> dict[str, Any]:
    report = SimReport(
        command="", measured_at="", environment=describe(()), quick=False, replicas=8, seconds=60, seeds=2,
        results=list(results), statistics=[], speed=speed, speed_replicas=1000,
    )  # fmt: skip
    return {figure.name: figure for figure in figures(report)}


def test_what_was_not_simulated_has_no_verdict() -> None:
    assert {figure.verdict for figure in made().values()} == {"not measured"}


def test_overload_is_held_against_the_ideal_and_names_the_best_baseline() -> None:
    found = made(
        result("load-b2b-prefix", "2", goodput=0.40, ideal=0.5, seed=1),
        result("load-b2b-prefix", "2", goodput=0.45, ideal=0.5, seed=2),
        result("load-b2b-prefix", "2", goodput=0.2, policy="random"),
        result("load-b2b-prefix", "2", goodput=0.3, policy="lmetric"),
        result("load-b2b-prefix", "1", goodput=0.5, policy="random"),
    )
    figure = found["goodput at twice the capacity, of the ideal, b2b-prefix"]

    assert figure.value == pytest.approx(85)
    assert figure.spread == pytest.approx((80, 90))
    assert figure.note == "best baseline: lmetric with 60 %"
    assert figure.verdict == "bar"


def test_ratios_are_taken_seed_by_seed() -> None:
    slower = msgspec.structs.replace(CLASS, ttft_p99_s=16.0)
    found = made(
        result("gateways", "1", goodput=0.4, seed=1),
        result("gateways", "1", goodput=0.8, seed=2),
        result("gateways", "16", goodput=0.76, seed=2),
        result("gateways", "16", goodput=0.38, seed=1),
        result("tenants", "without it", others_ttft_p95_s=2.0),
        result("tenants", "one at 50×", others_ttft_p95_s=2.5),
        result("slow", "one slow"),
        result("slow", "one slow", policy="round-robin", classes={"interactive": slower}),
        result("classes", "0.9", classes={"interactive": CLASS, "bulk": CLASS}),
        speed=msgspec.structs.replace(BASE, endings={"complete": 900_000}),
    )  # fmt: skip

    assert found["16 gateways: goodput over that of 1"].spread == pytest.approx((95, 95))
    assert found["one tenant at 50×: others' p95 TTFT, longer by"].value == pytest.approx(25)
    assert found["one of three slow: p99 TTFT over round-robin's"].value == 0.25
    assert found["longest wait over the class's budget, load 0.9"].value == 1.5
    assert found["simulated requests/s, decisions included"].value == 30_000
    assert found["a million simulated requests"].value == pytest.approx(33.333)
    assert found["one admission, 1,000 replicas, p99"].verdict == "no"
