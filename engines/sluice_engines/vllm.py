"""vLLM's OpenAI server (`vllm serve`), of any quantization.

Metric names are those of `vllm/v1/metrics/loggers.py`, with the ones they replaced behind them. Series have
the labels `model_name` and `engine`, one engine for each data-parallel rank. Recorded pages of version 0.32
are in the tests.

Embeddings, rerank and score need an instance that was started for them (`--runner pooling`), which then
generates nothing: such a backend says so with `endpoints`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from sluice_engines.adapter import Quirk, VersionPage
from sluice_engines.load_report import LoadReport
from sluice_engines.load_signals import Signal, counter, gauge, histogram, ratio
from sluice_engines.openai_compatible import OpenAICompatibleAdapter
from sluice_engines.options import convert_options
from sluice_engines.start_command import StartCommand
from sluice_router.types import Capabilities

REPORT = LoadReport(
    (
        ratio("kv_used_ratio", "named_metrics.kv_cache_usage_perc"),
        gauge("waiting", "named_metrics.num_requests_waiting"),
    )
)
"""What its answers to chat and completions tell of its load where they are not streamed, by
vllm/entrypoints/serve/utils/orca_metrics.py of 0.32."""


class VllmOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of the adapter."""

    load_report: bool = False
    """Have answers tell the load."""


class VllmAdapter(OpenAICompatibleAdapter):
    """vLLM."""

    name = "vllm"
    title = "vLLM"
    default_port = 8001
    capabilities = Capabilities(
        endpoints=frozenset(
            {"chat", "completions", "responses", "messages", "count_tokens", "tokenize", "detokenize"}
        ),
        prompt_logprobs=True,
        tools=True,
        tool_calls=True,
        json_schema=True,
        images=True,
        continues_chat=True,
    )
    health_path = "/health"
    ready_path = "/health"
    metrics_path = "/metrics"
    metrics_missing = "start it without --disable-log-stats, which takes the metrics away"
    version = VersionPage(path="/version", field="version")
    start = StartCommand(
        program="vllm",
        arguments=("serve", "--host", "127.0.0.1", "--port", "{port}"),
        module="vllm.entrypoints.cli.main",
        install="install 'sluice-engines[vllm]' beside the gateway, or give its program as 'command'",
        needs_args="[MODEL]",
    )
    signals = (
        gauge("running", "vllm:num_requests_running"),
        gauge("waiting", "vllm:num_requests_waiting_by_reason", where=(("reason", "capacity"),)),
        gauge("waiting", "vllm:num_requests_waiting"),
        ratio("kv_used_ratio", "vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
        gauge("kv_blocks", "vllm:cache_config_info", label="num_gpu_blocks"),
        ratio("kv_block_tokens", "vllm:cache_config_info", label="block_size"),
        gauge("kv_capacity_tokens", "vllm:cache_config_info", label="kv_cache_size_tokens"),
        counter("prefix_queried_tokens", "vllm:prefix_cache_queries", "vllm:gpu_prefix_cache_queries"),
        counter("prefix_hit_tokens", "vllm:prefix_cache_hits", "vllm:gpu_prefix_cache_hits"),
        counter("preemptions", "vllm:num_preemptions"),
        counter("prompt_tokens", "vllm:prompt_tokens"),
        counter("generation_tokens", "vllm:generation_tokens"),
        *histogram("ttft", "vllm:time_to_first_token_seconds"),
        *histogram("queue_time", "vllm:request_queue_time_seconds"),
        counter("draft_tokens", "vllm:spec_decode_num_draft_tokens"),
        counter("accepted_tokens", "vllm:spec_decode_num_accepted_tokens"),
        Signal(field="max_loras", names=("vllm:lora_requests_info",), label="max_lora", combine="newest"),
        Signal(
            field="loras",
            names=("vllm:lora_requests_info",),
            label="running_lora_adapters",
            combine="newest",
        ),
        gauge("awake", "vllm:engine_sleep_state", where=(("sleep_state", "awake"),)),
    )
    quirks = (
        Quirk(
            about="A full queue (--max-num-queued-reqs, --max-num-queued-tokens) is answered with 503. That"
            " is no failure: the request goes to the next replica.",
            source="vllm-project/vllm PR 49445",
        ),
        Quirk(
            about="`num_requests_waiting` also counts requests that wait for something other than room"
            " (a LoRA adapter, a KV transfer); only the reason `capacity` counts here.",
            source="vllm/v1/metrics/loggers.py of 0.32",
        ),
        Quirk(
            about="`kv_cache_usage_perc` counts blocks of live requests; blocks that only hold a cached"
            " prefix count as free. Up to 0.9 it was called `gpu_cache_usage_perc`; both are read.",
            source="vllm/v1/metrics/loggers.py of 0.32",
        ),
        Quirk(
            about="Its error bodies have a number as `code`, and 404, 405 and 401 have none of OpenAI's keys;"
            " the gateway words them anew.",
            source="measured on 0.32",
        ),
        Quirk(
            about="It tells KV use and waiting requests with plain answers to chat and completions that ask"
            " for it (ORCA), never with streams; all who wait are counted, so that it can only say that fewer"
            " do. For each it looks through its metrics, some 2 ms, and writes a line of log: only"
            " `options: {load_report: true}` asks.",
            source="vllm/entrypoints/serve/utils/orca_metrics.py of 0.32; measured",
        ),
        Quirk(
            about="It keeps stored responses in the memory of one process; the gateway stores them itself.",
            source="vllm-project/vllm PR 37938, issue 43244",
        ),
    )

    def __init__(self, options: Mapping[str, object] = MappingProxyType({})) -> None:
        """`options` are the fields of `VllmOptions`; raises `ValueError` on a wrong one."""
        chosen = convert_options(self.name, options, VllmOptions)
        super().__init__()
        self.load_report = REPORT if chosen.load_report else None
