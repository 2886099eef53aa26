"""Where two distributions agree on something without importing each other."""

from __future__ import annotations

from sluice_engines.worker import WorkerAdapter
from sluice_router.types import EngineLoad
from sluice_worker.outputs import EngineStats
from sluice_worker.server.metrics import Metrics


def test_the_gateway_reads_the_load_that_the_worker_reports():
    stats = EngineStats(
        num_running=3, num_waiting=5, kv_blocks_total=80, kv_blocks_used=20, kv_blocks_cached=9
    )
    page = Metrics(stats=lambda: stats, model_info=lambda: None).page()

    load = WorkerAdapter().parse_load({"/metrics": page})

    assert load == EngineLoad(running=3, waiting=5, kv_used_ratio=0.25)
