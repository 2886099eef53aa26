"""SGLang's server (`python -m sglang.launch_server --enable-metrics`).

Metric names are those of `python/sglang/srt/observability/metrics_collector.py`; some builds wrote them with
an underscore in place of the colon, and both are read. Of the ranks that may report (`dp_rank`, and inside
each of them `tp_rank` and `pp_rank`), data-parallel ones are added up and the others say the same again.
"""

from __future__ import annotations

from sluice_engines.adapter import Quirk, VersionPage
from sluice_engines.load_signals import Signal, counter, gauge, histogram, ratio
from sluice_engines.openai_compatible import OpenAICompatibleAdapter
from sluice_router.types import Capabilities

_ALL_PRIORITIES = (("priority", ""),)
_RANK = "dp_rank"


def _both(name: str) -> tuple[str, str]:
    return f"sglang:{name}", f"sglang_{name}"


class SglangAdapter(OpenAICompatibleAdapter):
    """SGLang."""

    name = "sglang"
    title = "SGLang"
    default_port = 30000
    capabilities = Capabilities(
        endpoints=frozenset({"chat", "completions", "embeddings", "rerank", "score"}),
        prompt_logprobs=True,
        tools=True,
        tool_calls=True,
        json_schema=True,
        images=True,
    )
    health_path = "/health"
    ready_path = "/health"
    metrics_path = "/metrics"
    metrics_missing = "start it with --enable-metrics"
    version = VersionPage(path="/server_info", field="version")
    signals = (
        gauge("running", *_both("num_running_reqs"), where=_ALL_PRIORITIES, per=_RANK),
        gauge("waiting", *_both("num_queue_reqs"), where=_ALL_PRIORITIES, per=_RANK),
        ratio("kv_used_ratio", *_both("token_usage"), per=_RANK),
        gauge("kv_capacity_tokens", *_both("max_total_num_tokens"), per=_RANK),
        ratio("kv_block_tokens", *_both("page_size")),
        Signal(field="kv_block_tokens", names=_both("cache_config_info"), label="page_size", combine="mean"),
        gauge("kv_blocks", *_both("num_pages"), per=_RANK),
        Signal(field="kv_blocks", names=_both("cache_config_info"), label="num_pages", per=_RANK),
        ratio("prefix_hit_ratio", *_both("cache_hit_rate"), per=_RANK),
        counter("preemptions", *_both("num_retracted_requests"), per=_RANK),
        counter("prompt_tokens", *_both("prompt_tokens")),
        counter("generation_tokens", *_both("generation_tokens")),
        *(s for name in _both("time_to_first_token_seconds") for s in histogram("ttft", name)),
        *(s for name in _both("queue_time_seconds") for s in histogram("queue_time", name, per=_RANK)),
        gauge("max_loras", *_both("lora_pool_slots_total"), per=_RANK),
    )
    quirks = (
        Quirk(
            about="It has metrics only with --enable-metrics. Some builds named them `sglang_...` in place of"
            " `sglang:...`; both are read.",
            source="sgl-project/sglang, python/sglang/srt/observability/metrics_collector.py;"
            " smg-project/smg, model_gateway/src/worker/monitor.rs",
        ),
        Quirk(
            about="With priority scheduling each queue gauge is there once for all requests (an empty"
            " `priority`) and once for each priority; only the first is read.",
            source="sgl-project/sglang, python/sglang/srt/observability/metrics_collector.py",
        ),
        Quirk(
            about="`token_usage` is the fullest of its memory pools (full attention, sliding window, state).",
            source="sgl-project/sglang, python/sglang/srt/observability/metrics_collector.py",
        ),
        Quirk(
            about="`/health_generate` generates a token at each call; `/health` is asked instead.",
            source="SGLang's manual, server arguments",
        ),
    )
