"""What each adapter makes of its engine's real pages, or of documented ones where none can run here."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from sluice_engines.adapter import EngineAdapter
from sluice_engines.baseline_adapters import OnnxAdapter, TransformersAdapter
from sluice_engines.llamacpp import LlamaCppAdapter
from sluice_engines.sglang import SglangAdapter
from sluice_engines.tgi import TgiAdapter
from sluice_engines.trtllm import TrtllmAdapter
from sluice_engines.vllm import VllmAdapter
from sluice_engines.worker import WorkerAdapter
from sluice_router.types import EngineLoad

from .recorded import load_pages

GUIDE = Path(__file__).parents[2] / "docs" / "engines.md"


def known(adapter: EngineAdapter, folder: str, *, busy: bool = False) -> dict[str, object]:
    """The fields that are not unknown."""
    paths = (page.path for page in adapter.load_pages)
    load: EngineLoad = adapter.parse_load(load_pages(folder, *paths, busy=busy))
    return {name: value for name, value in msgspec.structs.asdict(load).items() if value is not None}


def test_the_worker_at_rest_and_at_work():
    idle, busy = known(WorkerAdapter(), "worker"), known(WorkerAdapter(), "worker", busy=True)

    assert (idle["running"], idle["waiting"], idle["waiting_uncached_tokens"], idle["kv_used_ratio"]) == (
        0,
        0,
        0,
        0,
    )
    assert busy == {
        "running": 2,
        "waiting": 1,
        "waiting_uncached_tokens": 156,
        "max_running": 2,
        "kv_used_ratio": 28 / 64,
        "kv_block_tokens": 32,
        "kv_capacity_tokens": 2048,
        "prefix_queried_tokens": 624,
        "prefix_hit_tokens": 0,
        "preemptions": 0,
        "prompt_tokens": 624,
        "generation_tokens": 1558,
        "ttft_sum_s": 1.08130930799598,
        "ttft_count": 4,
        "quant": "none",
    }


def test_vllm_at_rest_and_at_work():
    idle, busy = known(VllmAdapter(), "vllm"), known(VllmAdapter(), "vllm", busy=True)

    assert (idle["running"], idle["waiting"], idle["kv_used_ratio"], idle["ttft_count"]) == (0, 0, 0, 1)
    assert busy == {
        "running": 2,
        "waiting": 3,
        "kv_used_ratio": 0.004886988393402514,
        "kv_block_tokens": 128,
        "kv_capacity_tokens": 209_664,
        "prefix_queried_tokens": 313,
        "prefix_hit_tokens": 0,
        "preemptions": 0,
        "prompt_tokens": 313,
        "generation_tokens": 478,
        "ttft_sum_s": 0.13697409629821777,
        "ttft_count": 3,
        "queue_time_sum_s": 3.1646999559598044e-05,
        "queue_time_count": 1,
        "asleep": False,
    }


def test_llama_cpp_at_rest_and_at_work():
    idle, busy = known(LlamaCppAdapter(), "llamacpp"), known(LlamaCppAdapter(), "llamacpp", busy=True)

    assert (idle["running"], idle["waiting"], idle["kv_used_ratio"]) == (0, 0, 0)
    assert busy == {
        "running": 2,
        "waiting": 1,
        "max_running": 2,
        "kv_used_ratio": (331 + 332) / 2048,
        "kv_capacity_tokens": 2048,
        "prefix_queried_tokens": 624,
        "prefix_hit_tokens": 12,
        "prompt_tokens": 624,
        "generation_tokens": 1000,
        "draft_tokens": 0,
        "accepted_tokens": 0,
        "asleep": False,
    }


def test_sglang_as_documented():
    assert known(SglangAdapter(), "sglang") == {
        "running": 12,
        "waiting": 3,
        "waiting_uncached_tokens": 5120,
        "max_running": 2048,
        "kv_used_ratio": 0.2812,
        "kv_block_tokens": 1,
        "kv_capacity_tokens": 440_383,
        "prefix_hit_ratio": 0.4375,
        "preemptions": 2,
        "prompt_tokens": 8_128_902,
        "generation_tokens": 7_557_572,
        "ttft_sum_s": 2350.25,
        "ttft_count": 11_008,
        "queue_time_sum_s": 512.5,
        "queue_time_count": 11_008,
    }


def test_tensorrt_llm_as_documented():
    assert known(TrtllmAdapter(), "trt") == {
        "running": 6,
        "waiting": 2,
        "max_running": 2048,
        "kv_used_ratio": 0.125,
        "kv_block_tokens": 32,
        "kv_capacity_tokens": 160_000,
        "prefix_hit_tokens": 12_800,
        "prefix_hit_ratio": 0.25,
        "prompt_tokens": 51_200,
        "generation_tokens": 20_480,
        "ttft_sum_s": 12.5,
        "ttft_count": 160,
        "queue_time_sum_s": 4.25,
        "queue_time_count": 160,
        "draft_tokens": 0,
        "accepted_tokens": 0,
    }


@pytest.mark.parametrize(
    ("adapter", "port"),
    [(VllmAdapter, 8001), (TrtllmAdapter, 8005), (WorkerAdapter, 8006), (LlamaCppAdapter, 8007)],
)
def test_ports_are_those_of_the_port_map(adapter: type[EngineAdapter], port: int):
    assert adapter.default_port == port


@pytest.mark.parametrize(
    "adapter",
    [
        VllmAdapter,
        SglangAdapter,
        TrtllmAdapter,
        LlamaCppAdapter,
        TgiAdapter,
        TransformersAdapter,
        OnnxAdapter,
    ],
)
def test_quirks_are_in_the_guide_with_where_they_are_from(adapter: type[EngineAdapter]):
    guide = " ".join(GUIDE.read_text().split())

    assert adapter.quirks
    for quirk in adapter.quirks:
        assert f"- {quirk.about} ({quirk.source})" in guide


def test_what_an_engine_tells_is_in_the_guides_table():
    rows = [
        ([*(cell.strip() for cell in line.strip("|").split("|"))])
        for line in GUIDE.read_text().splitlines()
        if line.startswith("| `") and line.count("|") > 5
    ]
    engines = {"worker": WorkerAdapter(), "vllm": VllmAdapter(), "sglang": SglangAdapter()}
    engines |= {"trt": TrtllmAdapter(), "llamacpp": LlamaCppAdapter(), "tgi-1": TgiAdapter()}
    for column, (folder, adapter) in enumerate(engines.items(), start=2):
        told = {field for row in rows if row[column] for field in row[0].replace("`", "").split(", ")}

        assert set(known(adapter, folder, busy=True)) - told <= {"quant"}, folder


def test_all_fields_of_a_load_are_in_the_guide():
    guide = GUIDE.read_text()

    for field in msgspec.structs.fields(EngineLoad):
        assert f"`{field.name}`" in guide or field.name == "quant"
