"""Sluice's own worker: OpenAI's API with readiness and load told apart.

Its metric names begin with `sluice_worker_`; a sample page is in the tests.
"""

from __future__ import annotations

from sluice_engines.metrics_page import MetricsPage
from sluice_engines.openai_compatible import OpenAICompatibleAdapter
from sluice_router.types import QUANTS, Capabilities, EngineLoad


class WorkerAdapter(OpenAICompatibleAdapter):
    """The from-scratch worker."""

    name = "worker"
    default_port = 8006
    capabilities = Capabilities(
        endpoints=frozenset({"chat", "completions", "tokenize", "detokenize"}), tools=True
    )
    health_path = "/health"
    ready_path = "/ready"
    metrics_path = "/metrics"

    def parse_load(self, page: str) -> EngineLoad:
        """Running and waiting sequences, the share of KV blocks that live requests hold, and the
        quantization of the model."""
        metrics = MetricsPage(page)
        quant = metrics.label("sluice_worker_model_info", "quantization")
        return EngineLoad(
            running=metrics.count("sluice_worker_requests_running"),
            waiting=metrics.count("sluice_worker_requests_waiting"),
            kv_used_ratio=metrics.ratio("sluice_worker_kv_blocks_used", "sluice_worker_kv_blocks_total"),
            quant=quant if quant in QUANTS else None,
        )
