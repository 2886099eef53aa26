"""What engines tell leads to the right decision: each test is a bug that some router has, or had.

Pages go through the real adapters into a real router. `docs/router.md` has a table of the traps, with the
tests of those that are met elsewhere; that these exist is tested here, too.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from measured_router import facts, nothing, router
from repository import ROOT, read

from sluice_engines.llamacpp import LlamaCppAdapter
from sluice_engines.openai_compatible import OpenAICompatibleAdapter
from sluice_engines.sglang import SglangAdapter
from sluice_engines.tgi_load import TgiLoad
from sluice_engines.trtllm import TrtllmAdapter
from sluice_engines.vllm import VllmAdapter
from sluice_router.router import Router
from sluice_router.types import EngineLoad, Usage

PREFIX = (3 << 60, 7 << 59, 11 << 58)
CACHED = facts(prefix=PREFIX, prompt_tokens_estimate=64 * len(PREFIX) + 10)


def metrics(adapter: OpenAICompatibleAdapter, page: str) -> EngineLoad:
    path = adapter.load_pages[-1].path
    return adapter.parse_load({path: page.encode()})


def vllm(page: str) -> EngineLoad:
    return metrics(VllmAdapter(), page)


def sglang(page: str) -> EngineLoad:
    return SglangAdapter().parse_load({"/metrics": page.encode()})


def ranks(name: str, *values: float) -> str:
    return "".join(f'vllm:{name}{{engine="{rank}"}} {value}\n' for rank, value in enumerate(values))


def chosen(asked=CACHED, **loads: EngineLoad) -> str:
    """The engine, of those that tell this, that a request goes to."""
    r = router(*loads)
    for name, load in loads.items():
        r.record_load(name, load, 0.0)
    endpoint = r.admit(asked, 0.0, nothing).endpoint
    assert endpoint is not None
    return endpoint.id


def takes_another(load: EngineLoad) -> bool:
    """Whether an engine that has one request and tells this is given a second one."""
    r = router("a")
    assert r.admit(facts(), 0.0, nothing).endpoint is not None
    r.record_load("a", load, 0.1)
    return r.admit(facts(), 0.1, nothing).endpoint is not None


def given_when_slow(load: EngineLoad, size: int = 16) -> int:
    """Requests, of 16, that an engine which tells this is given, once first tokens come much later."""
    r, now = router("a", size=size), 0.0
    for number in range(60):
        r.record_load("a", load, now)
        first_s = 0.3 if number < 30 else 6.0
        tickets = [r.admit(facts(), now, nothing) for _ in range(size)]
        now += first_s
        for ticket in tickets:
            ticket.first_token(now)
        now += 1.0
        for ticket in tickets:
            ticket.settle(now, Usage(prompt_tokens=1000, completion_tokens=10))
    return sum(r.admit(facts(), now, nothing).endpoint is not None for _ in range(size))


# Names that others begin with, that were changed, or that lack their ending


def test_a_longer_name_does_not_make_an_engine_look_full():
    one = vllm('vllm:num_requests_waiting_by_stage{stage="x"} 40\nvllm:num_requests_waiting{engine="0"} 1\n')
    other = vllm('vllm:num_requests_waiting{engine="0"} 5\n')

    assert chosen(facts(), a=other, b=one) == "b"


@pytest.mark.parametrize("name", ["kv_cache_usage_perc", "gpu_cache_usage_perc"])
def test_a_full_cache_is_seen_by_its_old_name_and_its_new_one(name: str):
    page = 'vllm:%s{engine="0"} %s\nvllm:cache_config_info{block_size="16",num_gpu_blocks="1000"} 1\n'

    assert not takes_another(vllm(page % (name, 0.95)))
    assert takes_another(vllm(page % (name, 0.25)))


@pytest.mark.parametrize("suffix", ["", "_total"])
def test_a_new_engine_is_known_by_its_counters_however_they_end(suffix: str):
    r = router("a", "b")
    first = r.admit(CACHED, 0.0, nothing)
    first.first_token(0.5)
    first.settle(1.0, None)
    assert first.endpoint is not None
    for at, tokens in ((2.0, 5000), (3.0, 20)):
        r.record_load(first.endpoint.id, vllm(f"vllm:prompt_tokens{suffix} {tokens}\n"), at)

    assert r.admit(CACHED, 10.0, nothing).hit_tokens == 0, "its cache is empty"


@pytest.mark.parametrize("separator", [":", "_"])
def test_sglang_is_understood_in_both_spellings(separator: str):
    busy, free = (
        sglang(
            f"sglang{separator}num_running_reqs 4\nsglang{separator}num_queue_reqs {n}\n"
            f"sglang{separator}token_usage {used}\n"
        )
        for n, used in ((9, 0.95), (0, 0.1))
    )

    assert chosen(facts(), a=busy, b=free) == "b"
    assert (takes_another(busy), takes_another(free)) == (False, True)


def test_sglangs_cache_has_a_size_without_the_label_that_newer_builds_dropped():
    page = "sglang:page_size 16\nsglang:num_pages %d\nsglang:token_usage 0\n"

    assert (takes_another(sglang(page % 100)), takes_another(sglang(page % 1000))) == (False, True)


# Several ranks behind one address


def test_the_ranks_of_an_engine_are_all_of_its_load():
    uneven = vllm(ranks("num_requests_running", 9, 0) + ranks("num_requests_waiting", 9, 0))
    even = vllm(ranks("num_requests_running", 2, 2) + ranks("num_requests_waiting", 2, 2))

    assert chosen(facts(), a=uneven, b=even) == "b"


def test_the_ratios_of_ranks_are_not_added_up():
    assert takes_another(vllm(ranks("kv_cache_usage_perc", 0.5, 0.5, 0.5)))
    assert not takes_another(vllm(ranks("kv_cache_usage_perc", 0.99, 0.93, 0.96)))


# What is waiting, and for what


def test_deferred_requests_send_nobody_elsewhere():
    page = 'vllm:num_requests_waiting_by_reason{engine="0",reason="%s"} %d\n'
    deferred = vllm(page % ("capacity", 0) + page % ("deferred", 30))
    congested = vllm(page % ("capacity", 3))

    assert chosen(facts(), a=congested, b=deferred) == "b"


def test_of_equal_queues_the_one_with_fewer_tokens_to_compute_is_shorter():
    page = '{"loads": [{"num_running_reqs": 4, "num_waiting_reqs": 5, "num_waiting_uncached_tokens": %d}]}'
    long, short = (
        SglangAdapter().parse_load({"/v1/loads": (page % tokens).encode()}) for tokens in (60_000, 900)
    )

    assert (chosen(a=long, b=short), chosen(a=short, b=long)) == ("b", "a")


# Unknown is neither empty nor full


def test_an_engine_that_does_not_tell_its_cache_is_not_taken_to_be_empty():
    known = vllm(ranks("kv_cache_usage_perc", 0.8))
    silent = vllm(ranks("num_requests_running", 0))
    r = router("known", "silent")
    r.record_load("known", known, 0.0)
    r.record_load("silent", silent, 0.0)
    ticket = r.admit(CACHED, 0.0, nothing)
    scores = {score.endpoint: score for score in ticket.scores}

    assert scores["silent"].kv_used_ratio is None
    assert scores["silent"].score == scores["known"].score
    assert takes_another(silent), "and not to be full"


def test_blocks_that_only_hold_a_cached_prefix_are_free_and_still_a_cache():
    r = router("a", "b")
    first = r.admit(CACHED, 0.0, nothing)
    first.first_token(0.5)
    first.settle(1.0, None)
    assert first.endpoint is not None
    page = (
        ranks("kv_cache_usage_perc", 0.0) + 'vllm:cache_config_info{block_size="16",num_gpu_blocks="999"} 1\n'
    )
    r.record_load(first.endpoint.id, vllm(page), 2.0)

    again = r.admit(CACHED, 10.0, nothing)

    assert (again.endpoint, again.hit_tokens) == (first.endpoint, 64 * len(PREFIX))


def test_the_caches_of_idle_slots_keep_nobody_out():
    busy, idle = (
        f'{{"is_processing": {state}, "n_ctx": 4096, "n_prompt_tokens": 4000}}' for state in ("true", "false")
    )
    first = '{"is_processing": true, "n_ctx": 4096, "n_prompt_tokens": 100}'

    def told(*slots: str) -> EngineLoad:
        return LlamaCppAdapter().parse_load({"/slots": f"[{', '.join(slots)}]".encode()})

    assert takes_another(told(first, idle))
    assert not takes_another(told(busy, busy))


def test_tgis_cache_bounds_nothing_until_its_size_is_told_or_configured():
    pages = {"/metrics": b"tgi_batch_current_size 1\ntgi_batch_current_max_tokens 3900\n", "/info": b"{}"}

    assert takes_another(TgiLoad().read(pages))
    assert not takes_another(TgiLoad(max_batch_total_tokens=4000).read(pages))


def test_no_iteration_since_the_last_look_does_not_make_an_engine_look_idle():
    adapter = TrtllmAdapter({"iteration_stats": True})
    stats = '[{"numActiveRequests": 0, "kvCacheStats": {"maxNumBlocks": 100, "usedNumBlocks": 80}}]'
    r = router("told", "drained")
    r.record_load("told", adapter.parse_load({"/metrics": stats.encode()}), 0.0)
    r.record_load("drained", adapter.parse_load({"/metrics": b"[]"}), 0.0)
    scores = {score.endpoint: score for score in r.admit(CACHED, 0.0, nothing).scores}

    assert (scores["told"].kv_used_ratio, scores["drained"].kv_used_ratio) == (0.8, None)
    assert scores["drained"].score == scores["told"].score


@pytest.mark.parametrize(
    "page",
    [
        "trtllm:time_to_first_token_seconds_sum 2.5\ntrtllm:time_to_first_token_seconds_count 5\n",
        "trtllm_prompt_tokens_total 900\n",
    ],
)
def test_a_page_without_load_leaves_an_engine_limited_by_how_its_answers_slow_down(page: str):
    """As behind Dynamo, which passes on a few of the series."""
    silent = TrtllmAdapter().parse_load({"/prometheus/metrics": page.encode()})
    telling = TrtllmAdapter().parse_load({"/prometheus/metrics": b"trtllm_num_requests_running 0\n"})

    assert given_when_slow(silent) < 16
    assert given_when_slow(telling) == 16


def test_an_engine_that_has_told_its_load_once_is_not_limited_for_a_page_that_lacks_it():
    r = router("a", size=16)
    r.record_load("a", EngineLoad(running=3), 0.0)
    r.record_load("a", EngineLoad(), 1.0)

    assert _limit_of(r) is None
    r.record_load("a", EngineLoad(prompt_tokens=9), 2.0)
    r.record_load("a", EngineLoad(prompt_tokens=1), 3.0)
    assert _limit_of(r) is not None, "it may be another engine now"


def _limit_of(r: Router) -> int | None:
    """Of an engine whose answers have slowed down; `None` for one that is not limited by that."""
    replica = r._replicas["a"]
    replica.limit._limit = 4.0
    return replica.in_flight_limit if replica.in_flight_limit < 16 else None


# The table

TRAPS = Path("docs/router.md")


def named_tests() -> list[tuple[Path, str]]:
    """Of the table of traps: file and function."""
    section = read(TRAPS).partition("\n## Traps\n")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ") and ".py" in line]
    assert len(rows) >= 20
    assert all(re.search(r"\[`?\w+`?\]\(", row) for row in rows), "a trap without a test"
    found = [
        (Path(target), name)
        for row in rows
        for name, target in re.findall(r"\[`(test_\w+)`\]\(\.\./([\w/]+\.py)\)", row)
    ]
    assert len(found) >= len(rows)
    return found


@pytest.mark.parametrize(("file", "name"), named_tests(), ids=lambda value: str(value))
def test_each_trap_has_a_test(file: Path, name: str):
    assert re.search(rf"^(async )?def {name}\(", (ROOT / file).read_text(), re.MULTILINE)


def test_each_test_of_this_file_is_in_the_table():
    own = set(re.findall(r"^def (test_\w+)\(", Path(__file__).read_text(), re.MULTILINE))
    own -= {"test_each_trap_has_a_test", "test_each_test_of_this_file_is_in_the_table"}

    assert own == {name for file, name in named_tests() if file.name == Path(__file__).name}
