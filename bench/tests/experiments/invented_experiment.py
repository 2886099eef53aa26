"""Rows of an experiment that never ran."""

from __future__ import annotations

from typing import Any

from sluice_bench.calibration import Calibration
from sluice_bench.experiments.measurement import Experiment, LoadFacts, Row
from sluice_bench.experiments.plan import Column, LeftOut

from ..invented_machine import TEST_MACHINE

SOUND = Calibration(
    probes=20, null_p50_ms=0.1, null_p99_ms=0.2, dispatch_lag_p99_ms=0.1, reference_p99_ms=50.0
)


def row(variant: str, speed: float | None, **given: Any) -> Row:
    """One user, 100 tokens, TTFT of 1 and 2 ms, unless said otherwise."""
    usual: dict[str, Any] = {
        "load": "1 at a time",
        "repeat": 0,
        "requests": 2,
        "failures": 0,
        "prompt_tokens": 50,
        "output_tokens": 100,
        "cached_tokens": 0,
        "seconds": 1.0,
        "ttft_ms": [1.0, 2.0],
        "tpot_p50_ms": 20.0,
        "e2e_p50_ms": 900.0,
        "figures": {"mean_batch": 2.5, "kv_utilisation": 0.75, "preemptions": 1.0},
        "foreign_cores": 0.0,
        "calibration": SOUND,
        "run_file": f"{variant}/20260101T000000Z.parquet",
        "workload_sha256": "w",
        "figures_sha256": "f",
    }
    return Row(variant=variant, tokens_per_s=speed, **usual | given)


def experiment(*rows: Row, **given: Any) -> Experiment:
    """Of `none` and `continuous` with one and ten users, unless said otherwise."""
    usual: dict[str, Any] = {
        "name": "batching",
        "title": "What each way of batching buys",
        "remarks": ("What is compared.",),
        "command": "sluice-bench experiment batching",
        "measured_at": "2026-01-01T00:00+00:00",
        "quick": False,
        "repeats": 3,
        "environment": TEST_MACHINE,
        "model": "sluice-tiny",
        "variants": ("none", "continuous"),
        "reference": "none",
        "headline": "tokens_per_s",
        "columns": (
            Column(key="mean_batch", title="mean batch"),
            Column(key="kv_utilisation", title="KV used of reserved", percent=True),
            Column(key="preemptions", title="preemptions"),
        ),
        "loads": (
            LoadFacts(name="1 at a time", requests=2, concurrency=1, rate_per_s=None),
            LoadFacts(name="10 at a time", requests=20, concurrency=10, rate_per_s=None),
        ),
        "left_out": (LeftOut("vllm", "it is not installed"),),
        "commands": {"worker": "sluice-worker serve"},
    }
    return Experiment(rows=list(rows), **usual | given)
