"""To and from GuideLLM's report.

`data/guidellm-worker.json` is the report of a run of our own of GuideLLM 0.8.1 against our worker with the
bundled model. Left out: the configuration, the scheduler, most of the metrics, and the requests' bodies.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sluice_bench.convert import guidellm
from sluice_bench.convert.field_map import BadForeignFile
from sluice_bench.convert.imported_run import run_of as run_of_imported
from sluice_bench.metrics import e2e_s, tpot_s, ttft_user_s
from sluice_bench.records import Failure

from ..recording.invented_run import MS, START_NS, never_sent, run_of, small_run, streamed

REPORT = Path(__file__).parent / "data" / "guidellm-worker.json"
DERIVED = (
    "request_latency",
    "request_scheduled_latency",
    "request_dispatch_delay",
    "prompt_tokens",
    "cached_tokens",
    "output_tokens",
    "total_tokens",
    "time_to_first_token_ms",
    "time_to_first_output_token_ms",
    "time_per_output_token_ms",
    "inter_token_latency_ms",
    "tokens_per_second",
    "output_tokens_per_second",
)


def report() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(REPORT.read_bytes())
    return found


def entries(document: dict[str, Any], group: str = "successful") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = document["benchmarks"][0]["requests"][group]
    return found


def exported(run: Any) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(guidellm.export_run(run).document)
    return document


def test_a_real_report_is_read_with_all_that_it_says() -> None:
    theirs = sorted(entries(report()), key=lambda entry: float(entry["info"]["timings"]["targeted_start"]))

    records = guidellm.import_run(REPORT.read_bytes()).records

    assert len(records) == len(theirs) == 6
    for record, entry in zip(records, theirs, strict=True):
        timings = entry["info"]["timings"]
        waited = timings["first_token_iteration"] - timings["targeted_start"]
        assert ttft_user_s(record) == pytest.approx(waited, abs=1e-6)
        assert e2e_s(record) == pytest.approx(
            timings["last_token_iteration"] - timings["targeted_start"], abs=1e-6
        )
        assert (record.prompt_tokens, record.output_tokens, record.cached_tokens) == (
            entry["prompt_tokens"],
            entry["output_tokens"],
            entry["cached_tokens"],
        )
        assert tpot_s(record) is None, "there are no times of chunks"


def test_there_and_back_again_its_own_figures_are_the_same() -> None:
    data = REPORT.read_bytes()
    run = run_of_imported(guidellm.import_run(data), data, "report.json")

    back = exported(run)

    theirs = {entry["time_to_first_token_ms"]: entry for entry in entries(report())}
    for entry in entries(back):
        nearest = min(theirs, key=lambda ttft: abs(ttft - entry["time_to_first_token_ms"]))
        for name in DERIVED:
            assert entry[name] == pytest.approx(theirs[nearest][name], rel=1e-4, abs=1e-6), name
    for name in ("time_to_first_token_ms", "request_latency", "output_token_count", "prompt_token_count"):
        ours = back["benchmarks"][0]["metrics"][name]["successful"]
        stated = report()["benchmarks"][0]["metrics"][name]["successful"]
        for figure in ("mean", "median", "std_dev", "min", "max", "count", "total_sum"):
            assert ours[figure] == pytest.approx(stated[figure], rel=1e-4, abs=1e-9), (name, figure)
        assert ours["percentiles"] == pytest.approx(stated["percentiles"], rel=1e-4), name


def test_every_field_of_a_request_is_taken_or_refused_with_a_reason() -> None:
    changed = report()
    entries(changed)[0]["new"] = 1
    entries(changed)[0]["info"]["timings"]["newer"] = 1.0

    refused = {f.theirs: f.why for f in guidellm.import_run(json.dumps(changed).encode()).refused}

    assert refused["new"] == refused["info.timings.newer"] == "not known to this version"
    names = {*entries(changed)[0], *entries(changed)[0]["info"]["timings"]} - {"newer"}
    assert names - set(refused) == {*guidellm.TAKEN, *guidellm.TAKEN_TIMINGS}
    assert all(refused.values())


def test_one_of_several_benchmarks_is_chosen() -> None:
    several = report()
    several["benchmarks"] *= 2
    data = json.dumps(several).encode()

    with pytest.raises(BadForeignFile, match="2 benchmarks; choose one with --benchmark"):
        guidellm.import_run(data)
    with pytest.raises(BadForeignFile, match="no 3"):
        guidellm.import_run(data, 3)
    assert len(guidellm.import_run(data, 2).records) == 6


def test_its_tpot_has_the_first_token_in_it_and_its_itl_is_tpot() -> None:
    source = random.Random(1)
    [entry] = entries(exported(run_of(streamed(0, 9, source))))

    record = streamed(0, 9, random.Random(1))
    assert record.first_token_ns is not None and record.last_token_ns is not None
    last = (record.last_token_ns - START_NS) / MS
    assert entry["time_per_output_token_ms"] == pytest.approx((last - 0.001) / 9)
    assert entry["inter_token_latency_ms"] == pytest.approx((last - 80) / 8)
    assert entry["time_to_first_token_ms"] == pytest.approx(80 - 0.001)
    assert entry["request_latency"] == pytest.approx((last + 1 - 0.001) / 1000)


def test_failures_and_what_was_cut_off_are_in_groups_of_their_own() -> None:
    lost = msgspec.structs.replace(
        streamed(1, 3, random.Random(1)), failure=Failure.CONNECTION_LOST, message="the peer closed"
    )
    document = exported(run_of(streamed(0, 3, random.Random(2)), lost, never_sent(2)))

    assert document["benchmarks"][0]["metrics"]["request_totals"] == {
        "successful": 1,
        "errored": 1,
        "incomplete": 1,
        "total": 3,
    }
    [errored] = entries(document, "errored")
    assert errored["info"]["error"] == "connection_lost: the peer closed"
    [back] = [r for r in guidellm.import_run(json.dumps(document).encode()).records if r.index == 1]
    assert back.failure is Failure.PROTOCOL


def test_trap_24_an_unknown_count_stays_unknown() -> None:
    document = exported(small_run())

    plain = next(entry for entry in entries(document) if entry["request_id"] == "4")
    assert plain["input_metrics"] == {"text_tokens": None, "cached_tokens": None}
    assert plain["total_tokens"] is None
    counts = document["benchmarks"][0]["metrics"]["prompt_token_count"]["successful"]
    assert counts["count"] == 4


@pytest.mark.parametrize("data", [b"{}", b"[]", b"no", b'{"benchmarks": []}'])
def test_what_is_no_report_is_refused(data: bytes) -> None:
    with pytest.raises(BadForeignFile):
        guidellm.import_run(data)
