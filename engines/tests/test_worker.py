"""Reading the worker's metrics page."""

from __future__ import annotations

import pytest

from sluice_engines.worker import WorkerAdapter
from sluice_router.types import EngineLoad


def load_of(page: str) -> EngineLoad:
    return WorkerAdapter().parse_load({"/metrics": page.encode()})


PAGE = """\
# HELP sluice_worker_requests_running Sequences in the running batch.
# TYPE sluice_worker_requests_running gauge
sluice_worker_requests_running 3.0
# HELP sluice_worker_requests_waiting Sequences that wait for room.
# TYPE sluice_worker_requests_waiting gauge
sluice_worker_requests_waiting 12.0
# TYPE sluice_worker_requests_waiting_by_reason gauge
sluice_worker_requests_waiting_by_reason{reason="capacity"} 99.0
# TYPE sluice_worker_kv_blocks_total gauge
sluice_worker_kv_blocks_total 200.0
# TYPE sluice_worker_kv_blocks_used gauge
sluice_worker_kv_blocks_used 50.0
"""


def test_the_gauges_become_a_load():
    assert load_of(PAGE) == EngineLoad(running=3, waiting=12, kv_used_ratio=0.25)


@pytest.mark.parametrize(("said", "known"), [("int8", "int8"), ("none", "none"), ("rot13", None)])
def test_the_model_says_how_it_is_quantized(said: str, known: str | None):
    info = f'sluice_worker_model_info{{architecture="L",quantization="{said}"}} 1.0\n'

    assert load_of(info).quant == known


def test_a_missing_gauge_is_unknown_not_zero():
    page = "\n".join(line for line in PAGE.splitlines() if "waiting " not in line and "used" not in line)

    assert load_of(page) == EngineLoad(running=3)


def test_ranks_are_summed():
    page = "".join(
        f'{name}{{rank="{rank}"}} {value}\n'
        for name, value in [
            ("sluice_worker_requests_running", 2),
            ("sluice_worker_kv_blocks_used", 10),
            ("sluice_worker_kv_blocks_total", 40),
        ]
        for rank in (0, 1)
    )

    assert load_of(page) == EngineLoad(running=4, kv_used_ratio=0.25)


def test_a_page_that_is_no_metrics_page_is_an_error():
    with pytest.raises(ValueError, match=r".+"):
        load_of("<html>{not metrics</html>")


def test_readiness_and_life_are_told_apart():
    adapter = WorkerAdapter()

    assert (adapter.health_path, adapter.ready_path, adapter.metrics_path) == (
        "/health",
        "/ready",
        "/metrics",
    )


def test_it_counts_tokens_as_well_as_it_generates_them():
    assert {"chat", "completions", "tokenize", "detokenize"} == WorkerAdapter.capabilities.endpoints
