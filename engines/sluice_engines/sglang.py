"""SGLang's server (`python -m sglang.launch_server --enable-metrics`).

Metric names are those of `python/sglang/srt/observability/metrics_collector.py`; some builds wrote them with
an underscore in place of the colon, and both are read. Of the ranks that may report (`dp_rank`, and inside
each of them `tp_rank` and `pp_rank`), data-parallel ones are added up and the others say the same again.

`/v1/loads` is JSON with one entry for each data-parallel rank. It needs no flag, and it alone tells how many
tokens of prefill wait; what it says wins.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from sluice_engines.adapter import LoadPage, Quirk, VersionPage
from sluice_engines.load_signals import (
    Reading,
    Signal,
    SignalTable,
    counter,
    gauge,
    histogram,
    load_from,
    ratio,
)
from sluice_engines.openai_compatible import OpenAICompatibleAdapter
from sluice_router.types import Capabilities, EngineLoad

METRICS_PATH, LOADS_PATH = "/metrics", "/v1/loads"
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
        continues_chat=True,
        continues_space=True,
    )
    health_path = "/health"
    ready_path = "/health"
    metrics_path = METRICS_PATH
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
            about="`/v1/loads` needs no flag and tells `num_waiting_uncached_tokens`, the prefill that waits;"
            " builds without it are read by their metrics alone.",
            source="sgl-project/sglang, LoadSnapshot of the scheduler; smg-project/smg",
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

    @property
    def load_pages(self) -> tuple[LoadPage, ...]:
        """Loads and metrics."""
        return (LoadPage(path=LOADS_PATH), LoadPage(path=METRICS_PATH, missing=self.metrics_missing))

    def parse_load(self, pages: Mapping[str, bytes]) -> EngineLoad:
        """What the metrics say, and over it what the loads say."""
        readings: dict[str, Reading] = {}
        if METRICS_PATH in pages:
            readings |= _METRICS.readings(pages[METRICS_PATH])
        if LOADS_PATH in pages:
            readings |= _of_loads(pages[LOADS_PATH])
        return load_from(readings)


_METRICS = SignalTable(SglangAdapter.signals)


class _RankLoad(msgspec.Struct):
    """One data-parallel rank; what a build does not tell stays `None`."""

    num_running_reqs: float | None = None
    num_waiting_reqs: float | None = None
    num_waiting_uncached_tokens: float | None = None
    max_running_requests: float | None = None
    max_total_num_tokens: float | None = None
    token_usage: float | None = None
    cache_hit_rate: float | None = None


class _Loads(msgspec.Struct):
    loads: list[_RankLoad]


_ADDED = {
    "running": "num_running_reqs",
    "waiting": "num_waiting_reqs",
    "waiting_uncached_tokens": "num_waiting_uncached_tokens",
    "max_running": "max_running_requests",
    "kv_capacity_tokens": "max_total_num_tokens",
}
_AVERAGED = {"kv_used_ratio": "token_usage", "prefix_hit_ratio": "cache_hit_rate"}


def _of_loads(page: bytes) -> dict[str, Reading]:
    """Raises `ValueError`."""
    try:
        ranks = msgspec.json.decode(page, type=_Loads).loads
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from error
    found: dict[str, Reading] = {}
    for field, name in (_ADDED | _AVERAGED).items():
        values = [value for rank in ranks if (value := getattr(rank, name)) is not None]
        if values and len(values) == len(ranks):
            found[field] = sum(values) / (len(values) if field in _AVERAGED else 1)
    return found
