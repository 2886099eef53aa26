"""The page says what was measured, and how far to trust it."""

from __future__ import annotations

import msgspec
import pytest

from sluice_bench.bandwidth import Bandwidth
from sluice_bench.baseline import Baseline, BaselineSettings, number_of_steps
from sluice_bench.baseline_report import render_baseline
from sluice_bench.calibration import Calibration
from sluice_bench.gateway_overhead import Kind, OverheadLoad, OverheadRow
from sluice_bench.worker_throughput import ModelFigures, ThroughputLoad, ThroughputRow

from .invented_machine import TEST_MACHINE


def overhead(target: str, kind: Kind, cost: float, repeat: int, foreign: float = 0.0) -> OverheadRow:
    return OverheadRow(
        target=target,
        kind=kind,
        repeat=repeat,
        requests=10,
        failures=0,
        units=10,
        reads=10,
        server_cpu_us_per_unit=cost,
        client_cpu_us_per_unit=5.0,
        server_resident_mib=50.0,
        wall_s=1.0,
        e2e_p50_ms=1.0,
        foreign_cores=foreign,
    )


def throughput(engine: str, streams: int, speed: float, calibration: Calibration | None) -> ThroughputRow:
    return ThroughputRow(
        model="m",
        engine=engine,
        streams=streams,
        repeat=0,
        failures=0,
        output_tokens=64,
        seconds=64 / speed,
        tokens_per_s=speed,
        tpot_p50_ms=100.0 if calibration else None,
        foreign_cores=0.0,
        calibration=calibration,
    )


@pytest.fixture
def baseline() -> Baseline:
    costs = {"direct": 10.0, "sluice": 100.0, "fastapi-httpx": 1500.0}
    kinds: tuple[Kind, ...] = ("plain", "stream")
    rows = [
        overhead(target, kind, cost + repeat, repeat, foreign=0.5 if repeat == 2 else 0.0)
        for target, cost in costs.items()
        for kind in kinds
        for repeat in range(3)
    ]
    calibration = Calibration(
        probes=40, null_p50_ms=0.1, null_p99_ms=5.0, dispatch_lag_p99_ms=0.1, reference_p99_ms=200.0
    )
    figures = ModelFigures(
        model="m",
        weight_bytes=1_000_000_000,
        bandwidth=Bandwidth(buffer_bytes=10**9, threads=2, best_gb_s=40.0, median_gb_s=38.0),
        worker_info={"kernels": "reference", "dtype": "bfloat16", "device": "cpu", "num_parameters": 10**9},
        rows=[throughput("sluice-worker", 1, 8.0, calibration), throughput("transformers", 1, 4.0, None)],
    )
    return Baseline(
        command="sluice-bench baseline",
        measured_at="2026-01-01T00:00+00:00",
        quick=False,
        environment=TEST_MACHINE,
        overhead_load=OverheadLoad(),
        throughput_load=ThroughputLoad(),
        gateway=rows,
        worker=[figures],
    )


def test_figures_are_medians_with_their_spread_and_ratios_to_the_gateway(baseline: Baseline) -> None:
    page = render_baseline(baseline, "baseline.json")
    assert "| **Sluice**, key checked | 101 (100–102) | 1.00 |" in page
    assert "| FastAPI + httpx proxy, no key | 1,501 (1,500–1,502) | 14.86 |" in page


def test_memory_and_joined_events_are_shown(baseline: Baseline) -> None:
    page = render_baseline(baseline, "baseline.json")
    assert "| 50 | 5.00 (5.00–5.00) | 1.00 (1.00–1.00) |" in page


def test_the_roof_and_the_share_of_it_are_given(baseline: Baseline) -> None:
    page = render_baseline(baseline, "baseline.json")
    assert "**40.0 tokens/s**" in page
    assert "| sluice-worker | 1 | 8.00 (8.00–8.00) | – | 100 (100–100) | 25.0 % |" in page


def test_disturbed_and_void_repeats_are_counted_openly(baseline: Baseline) -> None:
    page = render_baseline(baseline, "baseline.json")
    assert "6 of 20 repeats had more than 0.2" in page
    assert "1 of 1 repeats" in page


def test_a_quick_run_warns_that_it_means_nothing(baseline: Baseline) -> None:
    quick = msgspec.structs.replace(baseline, quick=True)
    assert "mean nothing" in render_baseline(quick, "baseline.json")
    assert "mean nothing" not in render_baseline(baseline, "baseline.json")


def test_the_page_names_command_commit_and_machine(baseline: Baseline) -> None:
    page = render_baseline(baseline, "baseline.json")
    assert "sluice-bench baseline" in page and "`abc1234`" in page and "Test CPU, 2 cores" in page


def test_raw_rows_survive_a_round_trip(baseline: Baseline) -> None:
    assert msgspec.json.decode(msgspec.json.encode(baseline), type=Baseline) == baseline


def test_one_part_alone_has_fewer_steps() -> None:
    whole = number_of_steps(BaselineSettings())
    gateway = number_of_steps(BaselineSettings(worker=False))
    worker = number_of_steps(BaselineSettings(gateway=False))
    assert whole == gateway + worker
