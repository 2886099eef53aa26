"""A run whose client was too slow is void; one whose client was fast enough is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from sluice_bench.calibration import MIN_PROBES, calibrate, run_calibrated
from sluice_bench.loops import ClosedLoop, LoadPlan
from sluice_bench.processes import null_server_process
from sluice_bench.records import Chunk, Failure, RequestRecord
from sluice_bench.target import Target
from sluice_bench.workload import Asking, Shape, chat_requests

MS = 1_000_000


def record(ttft_ms: float, lag_ms: float = 0.0, failure: Failure | None = None) -> RequestRecord:
    first = round(ttft_ms * MS)
    return RequestRecord(
        index=0,
        stream=True,
        scheduled_ns=0,
        dispatched_ns=round(lag_ms * MS),
        written_ns=0,
        first_token_ns=first,
        last_token_ns=first,
        chunks=(Chunk(first, 1, 1),),
        failure=failure,
    )


def test_a_client_that_adds_little_is_believed() -> None:
    calibration = calibrate([record(100)] * 50, [record(1.9)] * 50)
    assert calibration.error_ms == pytest.approx(1.9)
    assert not calibration.void


def test_a_slow_client_voids_the_run() -> None:
    assert calibrate([record(100)] * 50, [record(2.1)] * 50).void


def test_late_dispatch_voids_the_run_though_the_null_server_was_quick() -> None:
    assert calibrate([record(100, lag_ms=3)] * 50, [record(0.1)] * 50).void


def test_a_run_in_which_nothing_completed_is_void() -> None:
    calibration = calibrate([record(100, failure=Failure.TIMEOUT)], [record(0.1)])
    assert calibration.reference_p99_ms is None
    assert calibration.void


def test_a_run_without_probes_is_void() -> None:
    calibration = calibrate([record(100)], [])
    assert calibration.null_p99_ms is None
    assert calibration.void


def test_probes_run_beside_the_load(tmp_path: Path) -> None:
    with (
        null_server_process(tmp_path, chunks=10, pace_ms=20) as server,
        null_server_process(tmp_path) as null,
    ):
        target = Target.parse(server.url)
        requests = chat_requests(
            target, Shape(prompt_words=16, output_tokens=10), Asking(model="null"), 6, seed=1
        )
        plan = LoadPlan(target=target, requests=requests, loop=ClosedLoop(2), hard_stop_s=60)
        run = run_calibrated(plan, Target.parse(null.url))
    assert [found.failure for found in run.records] == [None] * 6
    assert run.calibration.probes >= MIN_PROBES
    assert 0 < (run.calibration.null_p50_ms or 0) <= (run.calibration.null_p99_ms or 0)
