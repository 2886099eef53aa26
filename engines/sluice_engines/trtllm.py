"""TensorRT-LLM's OpenAI server (`trtllm-serve`).

Its Prometheus page is at `/prometheus/metrics`, and only there when `return_perf_metrics: true` is set;
gauges of KV cache and queue need `enable_iter_perf_stats: true` as well. `/metrics` is something else: JSON
of the iterations since it was last read, so whoever reads it takes them away from the next. It is left alone
unless the option `iteration_stats` says that nobody else reads it.

Names are those of `tensorrt_llm/metrics/collector.py` and of `tensorrt_llm/serve/openai_server.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from sluice_engines.adapter import LoadPage, Quirk, VersionPage
from sluice_engines.load_signals import Reading, counter, gauge, histogram, load_from, ratio
from sluice_engines.openai_compatible import OpenAICompatibleAdapter
from sluice_engines.options import convert_options
from sluice_router.types import Capabilities, EngineLoad

ITERATIONS_PATH = "/metrics"


def _both(name: str) -> tuple[str, str]:
    """As the engine writes it, and as older releases of Dynamo did."""
    return f"trtllm_{name}", f"trtllm:{name}"


class TrtllmOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of the adapter."""

    iteration_stats: bool = False
    """Read the JSON at `/metrics`, which empties it, in place of the Prometheus page."""


class TrtllmAdapter(OpenAICompatibleAdapter):
    """TensorRT-LLM."""

    name = "trt"
    title = "TensorRT-LLM"
    default_port = 8005
    capabilities = Capabilities(
        endpoints=frozenset({"chat", "completions", "responses"}),
        tools=True,
        tool_calls=True,
        json_schema=True,
        images=True,
    )
    health_path = "/health"
    ready_path = "/health"
    metrics_path = "/prometheus/metrics"
    metrics_missing = "set return_perf_metrics and enable_iter_perf_stats to true in its configuration"
    version = VersionPage(path="/version", field="version")
    signals = (
        gauge("running", *_both("num_requests_running")),
        gauge("waiting", *_both("num_requests_waiting")),
        gauge("max_running", *_both("max_num_active_requests")),
        ratio("kv_used_ratio", *_both("kv_cache_utilization")),
        gauge("kv_blocks", *_both("kv_cache_max_blocks")),
        gauge("kv_blocks_used", *_both("kv_cache_used_blocks")),
        ratio("kv_block_tokens", *_both("kv_cache_tokens_per_block")),
        ratio("prefix_hit_ratio", *_both("kv_cache_hit_rate")),
        counter("prefix_hit_tokens", *_both("prompt_cached_tokens")),
        counter("prompt_tokens", *_both("prompt_tokens")),
        counter("generation_tokens", *_both("generation_tokens")),
        *(s for name in _both("time_to_first_token_seconds") for s in histogram("ttft", name)),
        *(s for name in _both("request_queue_time_seconds") for s in histogram("queue_time", name)),
        counter("draft_tokens", *_both("spec_decode_num_draft_tokens")),
        counter("accepted_tokens", *_both("spec_decode_num_accepted_tokens")),
    )
    quirks = (
        Quirk(
            about="`/metrics` is JSON and empties a queue: each iteration is told to one reader only. The"
            " adapter leaves it alone and reads `/prometheus/metrics`; `options: {iteration_stats: true}`"
            " reads it for servers that have nothing else.",
            source="NVIDIA/TensorRT-LLM, tensorrt_llm/serve/openai_server.py",
        ),
        Quirk(
            about="Without `return_perf_metrics: true` there is no Prometheus page, and without"
            " `enable_iter_perf_stats: true` none of queue and KV cache on it.",
            source="NVIDIA/TensorRT-LLM, tensorrt_llm/serve/openai_server.py",
        ),
        Quirk(
            about="Behind Dynamo only about five of the series exist; what is missing stays unknown.",
            source="seen at 1.1.0rc5",
        ),
    )

    def __init__(self, options: Mapping[str, object] = MappingProxyType({})) -> None:
        """`options` are the fields of `TrtllmOptions`; raises `ValueError` on a wrong one."""
        self._options = convert_options(self.name, options, TrtllmOptions)
        super().__init__()

    @property
    def load_pages(self) -> tuple[LoadPage, ...]:
        """One of the two, never both."""
        if self._options.iteration_stats:
            return (LoadPage(path=ITERATIONS_PATH, missing="set enable_iter_perf_stats to true"),)
        return super().load_pages

    def parse_load(self, pages: Mapping[str, bytes]) -> EngineLoad:
        """From whichever page is read."""
        if ITERATIONS_PATH in pages:
            return load_from(iteration_readings(pages[ITERATIONS_PATH]))
        return super().parse_load(pages)


_ITERATION_FIELDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("running", ("numActiveRequests",)),
    ("waiting", ("numQueuedRequests",)),
    ("max_running", ("maxNumActiveRequests",)),
    ("kv_blocks", ("kvCacheStats", "maxNumBlocks")),
    ("kv_blocks_used", ("kvCacheStats", "usedNumBlocks")),
    ("kv_block_tokens", ("kvCacheStats", "tokensPerBlock")),
    ("prefix_hit_ratio", ("kvCacheStats", "cacheHitRate")),
)


def iteration_readings(page: bytes) -> dict[str, Reading]:
    """What the newest iteration of the JSON page says; nothing when there was none since the last look.

    Raises `ValueError` when the page is not a list of iterations.
    """
    try:
        iterations = msgspec.json.decode(page, type=list[dict[str, Any]])
    except msgspec.DecodeError as error:
        raise ValueError(f"it is no list of iterations: {error}") from error
    found: dict[str, Reading] = {}
    for field, way in _ITERATION_FIELDS if iterations else ():
        value: Any = iterations[-1]
        for key in way:
            value = value.get(key) if isinstance(value, dict) else None
        if isinstance(value, int | float):
            found[field] = float(value)
    return found
