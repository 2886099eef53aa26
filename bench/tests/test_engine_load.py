"""One sample out of each engine's page; what a page does not say is unknown."""

from __future__ import annotations

import pytest

from sluice_bench.engine_load import load_sample

PAGES = {
    "worker": (
        "# HELP sluice_worker_requests_running x\n# TYPE sluice_worker_requests_running gauge\n"
        "sluice_worker_requests_running 3\nsluice_worker_requests_waiting 2\n"
        "sluice_worker_kv_blocks_used 25\nsluice_worker_kv_blocks_total 100\n",
        (3.0, 2.0, 0.25),
    ),
    "gateway": (
        "sluice_gateway_requests_in_flight 9.0\nsluice_gateway_queue_depth 4.0\n",
        (5.0, 4.0, None),
    ),
    "vllm with two engines": (
        'vllm:num_requests_running{engine="0",model_name="a b"} 3.0\n'
        'vllm:num_requests_running{engine="1",model_name="a b"} 4.0\n'
        'vllm:num_requests_waiting{engine="0"} 1.0\n'
        'vllm:num_requests_waiting_by_reason{reason="capacity"} 99.0\n'
        'vllm:kv_cache_usage_perc{engine="0"} 0.5\nvllm:kv_cache_usage_perc{engine="1"} 0.25\n',
        (7.0, 1.0, 0.375),
    ),
    "older vllm": (
        "vllm:num_requests_running 1.0\nvllm:gpu_cache_usage_perc 0.125\n",
        (1.0, None, 0.125),
    ),
    "llama.cpp": ("llamacpp:requests_processing 2\nllamacpp:requests_deferred 0\n", (2.0, 0.0, None)),
    "an engine that says nan": ("sglang:num_running_reqs 2\nsglang:token_usage NaN\n", (2.0, None, None)),
}


@pytest.mark.parametrize("engine", PAGES)
def test_each_engine_is_read_in_its_own_words(engine: str) -> None:
    page, expected = PAGES[engine]
    sample = load_sample(page, at_ns=7)
    assert sample is not None
    assert (sample.at_ns, sample.running, sample.waiting, sample.kv_used_ratio) == (7, *expected)


@pytest.mark.parametrize("page", ["", "python_gc_objects_collected_total 5\n", "<html>no</html>"])
def test_a_page_of_nobody_known_is_no_sample(page: str) -> None:
    assert load_sample(page, at_ns=7) is None
