"""What other routers have read wrongly: each of these is a bug that some router has, or had."""

from __future__ import annotations

import pytest

from sluice_engines.llamacpp import LlamaCppAdapter
from sluice_engines.openai_compatible import OpenAICompatibleAdapter
from sluice_engines.sglang import SglangAdapter
from sluice_engines.tgi_load import TgiLoad
from sluice_engines.trtllm import TrtllmAdapter
from sluice_engines.vllm import VllmAdapter
from sluice_router.types import EngineLoad

from .recorded import load_pages


def vllm(page: str) -> EngineLoad:
    return VllmAdapter().parse_load({"/metrics": page.encode()})


def sglang(page: str) -> EngineLoad:
    return SglangAdapter().parse_load({"/metrics": page.encode()})


def trt(page: str) -> EngineLoad:
    return TrtllmAdapter().parse_load({"/prometheus/metrics": page.encode()})


def slots(page: str, **other: str) -> EngineLoad:
    pages = {"/slots": page, **{f"/{name}": text for name, text in other.items()}}
    return LlamaCppAdapter().parse_load({path: text.encode() for path, text in pages.items()})


# A name that another one begins with


def test_waiting_is_not_waiting_by_reason():
    page = 'vllm:num_requests_waiting_by_stage{stage="x"} 40\nvllm:num_requests_waiting{engine="0"} 2\n'

    assert vllm(page).waiting == 2


# Data-parallel ranks


def test_ranks_are_added_up_and_ratios_averaged():
    page = "".join(
        f'vllm:{name}{{engine="{rank}",model_name="m"}} {value}\n'
        for rank, values in enumerate([(3, 1, 0.25), (5, 0, 0.75)])
        for name, value in zip(
            ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"), values, strict=True
        )
    )

    load = vllm(page)

    assert (load.running, load.waiting, load.kv_used_ratio) == (8, 1, 0.5)


def test_the_kv_cache_of_all_ranks_is_the_engines():
    page = "".join(
        f'vllm:cache_config_info{{block_size="16",engine="{rank}",num_gpu_blocks="1000"}} 1.0\n'
        for rank in range(2)
    )

    load = vllm(page)

    assert (load.kv_block_tokens, load.kv_capacity_tokens) == (16, 32_000)


def test_tensor_parallel_ranks_say_the_same_again():
    page = "".join(
        f'sglang:num_running_reqs{{dp_rank="{dp}",tp_rank="{dp * 2 + tp}"}} {4 + dp}\n'
        f'sglang:token_usage{{dp_rank="{dp}",tp_rank="{dp * 2 + tp}"}} {0.25 + dp / 2}\n'
        for dp in range(2)
        for tp in range(2)
    )

    load = sglang(page)

    assert (load.running, load.kv_used_ratio) == (9, 0.5)


# Waiting for room, and waiting for something else


def test_deferred_requests_are_not_congestion():
    page = (
        'vllm:num_requests_waiting{engine="0"} 9\n'
        'vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 1\n'
        'vllm:num_requests_waiting_by_reason{engine="0",reason="deferred"} 8\n'
    )

    assert vllm(page).waiting == 1


def test_a_queue_without_any_that_wait_for_room_is_empty_not_unknown():
    page = (
        'vllm:num_requests_waiting{engine="0"} 8\n'
        'vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 0\n'
        'vllm:num_requests_waiting_by_reason{engine="0",reason="deferred"} 8\n'
    )

    assert vllm(page).waiting == 0


def test_the_total_of_all_priorities_is_not_added_to_its_parts():
    page = (
        'sglang:num_queue_reqs{priority=""} 5\n'
        'sglang:num_queue_reqs{priority="1"} 2\n'
        'sglang:num_queue_reqs{priority="2"} 3\n'
    )

    assert sglang(page).waiting == 5


# Unknown is not zero


@pytest.mark.parametrize("missing", ["num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"])
def test_a_missing_gauge_is_unknown(missing: str):
    names = {
        "num_requests_running": "running",
        "num_requests_waiting": "waiting",
        "kv_cache_usage_perc": "kv_used_ratio",
    }
    load = vllm("".join(f'vllm:{name}{{engine="0"}} 1\n' for name in names if name != missing))

    known = {field: getattr(load, field) for field in names.values()}
    assert known == {field: None if name == missing else 1 for name, field in names.items()}


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-Inf"])
def test_what_is_no_number_is_unknown(value: str):
    load = vllm(f"vllm:kv_cache_usage_perc {value}\nvllm:num_requests_running {value}\n")

    assert load == EngineLoad()


def test_a_newer_name_without_a_number_gives_way_to_the_older_one():
    assert vllm("vllm:kv_cache_usage_perc NaN\nvllm:gpu_cache_usage_perc 0.5\n").kv_used_ratio == 0.5


def test_a_block_count_that_the_engine_does_not_know_yet_is_unknown():
    load = vllm('vllm:cache_config_info{block_size="16",num_gpu_blocks="None"} 1\n')

    assert (load.kv_block_tokens, load.kv_capacity_tokens) == (16, None)


# Names that changed


def test_old_and_new_names_of_the_kv_gauge():
    assert vllm("vllm:gpu_cache_usage_perc 0.25\n").kv_used_ratio == 0.25
    assert vllm("vllm:gpu_cache_usage_perc 0.25\nvllm:kv_cache_usage_perc 0.5\n").kv_used_ratio == 0.5


@pytest.mark.parametrize("suffix", ["", "_total"])
def test_counters_are_found_with_their_suffix_and_without(suffix: str):
    load = vllm(f"vllm:num_preemptions{suffix} 3\nvllm:gpu_prefix_cache_hits{suffix} 70\n")

    assert (load.preemptions, load.prefix_hit_tokens) == (3, 70)


@pytest.mark.parametrize("separator", [":", "_"])
def test_sglang_with_a_colon_and_with_an_underscore(separator: str):
    page = "".join(
        f"sglang{separator}{line}\n"
        for line in (
            "num_running_reqs 2",
            "num_queue_reqs 1",
            "token_usage 0.5",
            "time_to_first_token_seconds_sum 3",
        )
    )

    load = sglang(page)

    assert (load.running, load.waiting, load.kv_used_ratio, load.ttft_sum_s) == (2, 1, 0.5, 3.0)


def test_sglangs_page_size_as_a_gauge_and_as_a_label():
    info = 'sglang:cache_config_info{num_pages="100",page_size="64"} 1\n'

    assert sglang(info) == EngineLoad(kv_block_tokens=64, kv_capacity_tokens=6400)
    assert sglang("sglang:page_size 1\nsglang:num_pages 100\n").kv_capacity_tokens == 100


def test_sglang_tells_its_load_without_metrics_too():
    ranks = [
        '{"dp_rank": 0, "num_running_reqs": 3, "num_waiting_uncached_tokens": 70, "token_usage": 0.25}',
        '{"dp_rank": 1, "num_running_reqs": 5, "num_waiting_uncached_tokens": 30, "token_usage": 0.75}',
    ]
    page = f'{{"loads": [{", ".join(ranks)}]}}'.encode()

    load = SglangAdapter().parse_load({"/v1/loads": page})

    assert load == EngineLoad(running=8, waiting_uncached_tokens=100, kv_used_ratio=0.5)


def test_what_one_of_sglangs_ranks_does_not_tell_is_unknown():
    page = b'{"loads": [{"num_running_reqs": 3, "num_waiting_reqs": 1}, {"num_running_reqs": 5}]}'

    load = SglangAdapter().parse_load({"/v1/loads": page, "/metrics": b"sglang:num_queue_reqs 7\n"})

    assert (load.running, load.waiting) == (8, 7)


@pytest.mark.parametrize("page", [b"[]", b"{}", b"no", b'{"loads": [{"num_running_reqs": "3"}]}'])
def test_loads_that_are_none_are_an_error(page: bytes):
    with pytest.raises(ValueError, match=r".+"):
        SglangAdapter().parse_load({"/v1/loads": page})


# The newest of several series


def test_lora_adapters_are_those_of_the_newest_series():
    page = "".join(
        f'vllm:lora_requests_info{{max_lora="4",running_lora_adapters="{names}"}} {time}\n'
        for names, time in (("old", "1.7e+09"), ("a,b", "1.8e+09"), ("older", "1.6e+09"))
    )

    load = vllm(page)

    assert (load.loras, load.max_loras) == (("a", "b"), 4)


def test_no_adapter_in_use_is_none_of_them_not_unknown():
    page = 'vllm:lora_requests_info{max_lora="4",running_lora_adapters="",waiting_lora_adapters=""} 1\n'

    assert (vllm(page).loras, vllm("vllm:num_requests_running 1\n").loras) == ((), None)


def test_an_engine_that_sleeps_says_so():
    page = (
        'vllm:engine_sleep_state{sleep_state="awake"} %d\n'
        'vllm:engine_sleep_state{sleep_state="discard_all"} 1\n'
    )

    assert (vllm(page % 0).asleep, vllm(page % 1).asleep) == (True, False)


# TensorRT-LLM: two pages, one of which is emptied by reading


def test_the_page_that_reading_empties_is_left_alone():
    assert [page.path for page in TrtllmAdapter().load_pages] == ["/prometheus/metrics"]


def test_it_is_read_in_place_of_the_other_when_asked_for():
    adapter = TrtllmAdapter({"iteration_stats": True})

    load = adapter.parse_load(load_pages("trt", "/metrics"))

    assert [page.path for page in adapter.load_pages] == ["/metrics"]
    assert (load.running, load.waiting, load.max_running) == (2, 5, 2048)  # of the newest iteration
    assert (load.kv_block_tokens, load.kv_capacity_tokens) == (32, 101_256 * 32)
    assert load.kv_used_ratio == 3 / 101_256


def test_no_iteration_since_the_last_look_is_unknown_not_idle():
    assert TrtllmAdapter({"iteration_stats": True}).parse_load({"/metrics": b"[]"}) == EngineLoad()


@pytest.mark.parametrize("page", [b"trtllm_x 1\n", b"{}", b"[1]", b""])
def test_what_is_no_list_of_iterations_is_an_error(page: bytes):
    with pytest.raises(ValueError, match="no list of iterations"):
        TrtllmAdapter({"iteration_stats": True}).parse_load({"/metrics": page})


def test_json_where_prometheus_text_should_be_is_an_error():
    page = load_pages("trt", "/metrics")["/metrics"]

    with pytest.raises(ValueError, match="no sample"):
        TrtllmAdapter().parse_load({"/prometheus/metrics": page})


def test_a_ratio_that_is_missing_is_made_of_blocks():
    assert trt("trtllm_kv_cache_max_blocks 200\ntrtllm_kv_cache_used_blocks 50\n").kv_used_ratio == 0.25


def test_trt_behind_dynamo():
    load = trt("trtllm:time_to_first_token_seconds_sum 2.5\ntrtllm:time_to_first_token_seconds_count 5\n")

    assert (load.ttft_sum_s, load.ttft_count, load.running) == (2.5, 5, None)


# TGI: the KV budget was lost between versions


def test_tgi_1_tells_the_budget_of_its_kv_cache():
    load = TgiLoad().read(load_pages("tgi-1", "/metrics", "/info"))

    assert (load.running, load.waiting) == (4, 7)
    assert (load.kv_capacity_tokens, load.kv_used_ratio) == (32_000, 6144 / 32_000)


def test_tgi_3_does_not_so_that_it_is_unknown_or_configured():
    pages = load_pages("tgi-3", "/metrics", "/info")

    assert TgiLoad().read(pages).kv_used_ratio is None
    assert TgiLoad(max_batch_total_tokens=12_288).read(pages).kv_used_ratio == 0.5


# llama.cpp: the KV gauges went, slots remained

BUSY = '"is_processing": true, "n_ctx": 1000'
IDLE = '"is_processing": false, "n_ctx": 1000'


def test_the_kv_estimate_counts_slots_at_work_only():
    page = f'[{{{BUSY}, "n_prompt_tokens": 300}}, {{{IDLE}, "n_prompt_tokens": 900}}]'

    load = slots(page)

    assert (load.kv_used_ratio, load.kv_capacity_tokens) == (300 / 2000, 2000)
    assert (load.running, load.max_running) == (1, 2)


@pytest.mark.parametrize("next_token", ['{"n_decoded": 100}', '[{"n_decoded": 100}]'])
@pytest.mark.parametrize("n_prompt_tokens", [300, 400])
def test_generated_tokens_count_once_in_every_build(next_token: str, n_prompt_tokens: int):
    """`n_prompt_tokens` is the prompt's 300 in one build, and all 400 in another."""
    computed = (
        f'"n_prompt_tokens": {n_prompt_tokens}, "n_prompt_tokens_processed": 250, "n_prompt_tokens_cache": 50'
    )
    page = f'[{{{BUSY}, {computed}, "next_token": {next_token}}}]'

    assert slots(page).kv_used_ratio == 400 / 1000


def test_slots_that_do_not_tell_their_tokens_leave_the_use_unknown():
    load = slots(f'[{{{BUSY}, "next_token": {{"n_decoded": 5}}}}]')

    assert (load.kv_used_ratio, load.kv_capacity_tokens, load.running) == (None, 1000, 1)


def test_the_engines_own_gauge_wins_over_the_estimate():
    page = f'[{{{BUSY}, "n_prompt_tokens": 300}}]'

    assert slots(page, metrics="llamacpp:kv_cache_usage_ratio 0.75\n").kv_used_ratio == 0.75


def test_properties_alone_tell_room_and_sleep():
    page = b'{"total_slots": 4, "is_sleeping": true, "default_generation_settings": {"n_ctx": 512}}'

    load = LlamaCppAdapter().parse_load({"/props": page})

    assert load == EngineLoad(max_running=4, kv_capacity_tokens=2048, asleep=True)


def test_slots_are_left_alone_on_a_server_that_may_sleep():
    paths = [page.path for page in LlamaCppAdapter({"slots": False}).load_pages]

    assert paths == ["/metrics", "/props"]


@pytest.mark.parametrize("page", ["{}", "[3]", "no", '[{"n_ctx": "many"}]'])
def test_slots_that_are_none_are_an_error(page: str):
    with pytest.raises(ValueError, match=r".+"):
        slots(page)


# Tables


def test_a_signal_for_a_field_that_there_is_not_is_refused():
    from sluice_engines.load_signals import SignalTable, gauge

    with pytest.raises(ValueError, match="EngineLoad has no field 'runing'"):
        SignalTable([gauge("runing", "x")])


def test_an_adapter_without_signals_knows_nothing():
    assert OpenAICompatibleAdapter().load_pages == ()
