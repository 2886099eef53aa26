"""Where two distributions agree on something without importing each other."""

from __future__ import annotations

from sluice_engines.worker import WorkerAdapter
from sluice_router.types import EngineLoad
from sluice_worker.outputs import EngineStats, ModelInfo, SequenceDelta
from sluice_worker.server.metrics import Metrics

INFO = ModelInfo(
    model="m",
    architecture="LlamaForCausalLM",
    vocab_size=100,
    eos_token_ids=[2],
    max_model_len=1024,
    device="cpu",
    dtype="float32",
    quantization="int8",
    weight_bytes=1,
    max_num_seqs=8,
    max_num_batched_tokens=512,
    block_size=16,
    num_kv_blocks=80,
    kv_bytes_per_token=1,
    num_parameters=1,
    kernels="cpu",
)


def test_the_gateway_reads_the_load_that_the_worker_reports():
    stats = EngineStats(
        num_running=3,
        num_waiting=5,
        waiting_uncached_tokens=700,
        kv_blocks_total=80,
        kv_blocks_used=20,
        kv_blocks_cached=9,
        prompt_tokens_total=1000,
        cached_tokens_total=400,
        generation_tokens_total=90,
        preemptions_total=1,
    )
    metrics = Metrics(stats=lambda: stats, model_info=lambda: INFO)
    metrics.meter(10.0, lambda: 10.5).observe(SequenceDelta(request_id="a", new_token_ids=[1]))

    load = WorkerAdapter().parse_load({"/metrics": metrics.page()})

    assert load == EngineLoad(
        running=3,
        waiting=5,
        waiting_uncached_tokens=700,
        max_running=8,
        kv_used_ratio=0.25,
        kv_block_tokens=16,
        kv_capacity_tokens=1280,
        prefix_queried_tokens=1000,
        prefix_hit_tokens=400,
        preemptions=1,
        prompt_tokens=1000,
        generation_tokens=90,
        ttft_sum_s=0.5,
        ttft_count=1,
        quant="int8",
    )
