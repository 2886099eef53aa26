"""Sluice's own worker: OpenAI's API with readiness and load told apart.

Its metric names begin with `sluice_worker_`; a recorded page is in the tests.
"""

from __future__ import annotations

from sluice_engines.adapter import VersionPage
from sluice_engines.load_signals import Signal, counter, gauge, histogram, ratio
from sluice_engines.openai_compatible import OpenAICompatibleAdapter
from sluice_engines.start_command import StartCommand
from sluice_router.types import Capabilities

_OURS = "sluice_worker_"


class WorkerAdapter(OpenAICompatibleAdapter):
    """The from-scratch worker."""

    name = "worker"
    title = "Sluice worker"
    default_port = 8006
    capabilities = Capabilities(
        endpoints=frozenset({"chat", "completions", "tokenize", "detokenize"}),
        prompt_logprobs=True,
        tools=True,
        continues_chat=True,
        continues_space=True,
    )
    health_path = "/health"
    ready_path = "/ready"
    metrics_path = "/metrics"
    version: VersionPage | None = None
    start = StartCommand(
        program="sluice-worker",
        arguments=("serve", "--host", "127.0.0.1", "--port", "{port}"),
        install="it comes with the distribution sluice-worker",
    )
    signals = (
        gauge("running", _OURS + "requests_running"),
        gauge("waiting", _OURS + "requests_waiting"),
        gauge("waiting_uncached_tokens", _OURS + "waiting_uncached_tokens"),
        gauge("max_running", _OURS + "requests_max"),
        gauge("kv_blocks", _OURS + "kv_blocks_total"),
        gauge("kv_blocks_used", _OURS + "kv_blocks_used"),
        ratio("kv_block_tokens", _OURS + "kv_block_tokens"),
        counter("prefix_queried_tokens", _OURS + "prompt_tokens"),
        counter("prefix_hit_tokens", _OURS + "prefix_cache_hit_tokens"),
        counter("preemptions", _OURS + "preemptions"),
        counter("prompt_tokens", _OURS + "prompt_tokens"),
        counter("generation_tokens", _OURS + "generation_tokens"),
        *histogram("ttft", _OURS + "time_to_first_token_seconds"),
        Signal(field="quant", names=(_OURS + "model_info",), label="quantization"),
    )
