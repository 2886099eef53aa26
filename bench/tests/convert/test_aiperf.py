"""To and from AIPerf's records.

`data/aiperf-worker.jsonl` are the records of a run of our own of AIPerf 0.13.0 against our worker with the
bundled model, whole.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sluice_bench.convert import aiperf
from sluice_bench.convert.field_map import BadForeignFile
from sluice_bench.convert.imported_run import run_of as run_of_imported
from sluice_bench.metrics import e2e_s, tpot_s, ttft_user_s
from sluice_bench.records import Chunk, Failure, TokenSource

from ..recording.invented_run import MS, START_NS, run_of, small_run, streamed

RECORDS = Path(__file__).parent / "data" / "aiperf-worker.jsonl"


def lines(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.splitlines()]


def exported(run: Any) -> list[dict[str, Any]]:
    return lines(aiperf.export_run(run).document)


def test_real_records_are_read_with_all_that_they_say() -> None:
    theirs = lines(RECORDS.read_bytes())

    records = aiperf.import_run(RECORDS.read_bytes()).records

    for record, line in zip(records, theirs, strict=True):
        metrics, metadata = line["metrics"], line["metadata"]
        queued_ms = (metadata["request_start_ns"] - metadata["credit_issued_ns"]) / 1e6
        ttft_ms, latency_ms = metrics["time_to_first_token"]["value"], metrics["request_latency"]["value"]
        assert (ttft_user_s(record) or 0) * 1000 == pytest.approx(queued_ms + ttft_ms)
        assert (e2e_s(record) or 0) * 1000 == pytest.approx(queued_ms + latency_ms)
        assert record.cached_tokens == metrics["usage_prompt_cache_read_tokens"]["value"]
        assert record.prompt_tokens == metrics["usage_prompt_tokens"]["value"]
    assert any(tpot_s(record) for record in records)


def test_there_and_back_again_its_own_figures_are_the_same() -> None:
    data = RECORDS.read_bytes()
    run = run_of_imported(aiperf.import_run(data), data, "profile_export.jsonl")

    for theirs, ours in zip(lines(data), exported(run), strict=True):
        for name in ("request_start_ns", "request_ack_ns", "request_end_ns", "credit_issued_ns"):
            assert _since_issue(ours, name) == _since_issue(theirs, name), name
        for name, entry in ours["metrics"].items():
            if name not in ("inter_chunk_latency", "time_to_second_token"):
                assert entry["unit"] == theirs["metrics"][name]["unit"], name
                assert entry["value"] == pytest.approx(theirs["metrics"][name]["value"], rel=1e-6), name


def _since_issue(line: dict[str, Any], name: str) -> int:
    stamp: int = line["metadata"][name] - line["metadata"]["credit_issued_ns"]
    return stamp


def test_every_field_is_taken_or_refused_with_a_reason() -> None:
    changed = lines(RECORDS.read_bytes())
    changed[0]["metadata"]["new"] = 1
    changed[0]["metrics"]["newer"] = {"value": 1, "unit": "ms"}
    data = b"\n".join(json.dumps(line).encode() for line in changed)

    refused = {field.theirs: field.why for field in aiperf.import_run(data).refused}

    assert refused["metadata.new"] == refused["metrics.newer"] == "not known to this version"
    assert refused["http_req_*"]
    names = {name for name in changed[1]["metrics"] if not name.startswith("http_req_")}
    left = names | set(changed[1]["metadata"])
    assert left - set(refused) <= {*aiperf.TAKEN_METRICS, *aiperf.TAKEN_METADATA}
    assert "inter_chunk_latency" in refused, "some answers have other numbers of chunks and tokens"


def test_its_itl_is_tpot_and_its_icl_are_the_gaps() -> None:
    [line] = exported(run_of(streamed(0, 9, random.Random(1))))
    record = streamed(0, 9, random.Random(1))
    assert record.last_token_ns is not None

    metrics = line["metrics"]
    span = (record.last_token_ns - START_NS) / MS - 80
    assert metrics["inter_token_latency"] == {"value": pytest.approx(span / 8), "unit": "ms"}
    assert len(metrics["inter_chunk_latency"]["value"]) == 8
    assert sum(metrics["inter_chunk_latency"]["value"]) == pytest.approx(span)
    assert metrics["time_to_first_token"]["value"] == pytest.approx(80 - 0.001)
    assert metrics["request_latency"]["value"] == pytest.approx(80 + span - 0.001)


def test_times_are_of_day_counted_from_the_runs_start() -> None:
    """The invented run began with the year 2026."""
    new_year_ns = 1_767_225_600 * 1_000_000_000

    [line] = exported(run_of(streamed(0, 2, random.Random(1))))

    assert line["metadata"]["credit_issued_ns"] == new_year_ns
    assert line["metadata"]["request_start_ns"] == new_year_ns + 1_000
    assert line["metadata"]["request_ack_ns"] == new_year_ns + 70 * MS
    records = aiperf.import_run(json.dumps(line).encode())
    assert records.started_utc == "2026-01-01T00:00:00+00:00"


def test_the_tokens_of_the_first_chunk_are_left_out_where_usage_tells_them() -> None:
    """As with AIPerf's per-chunk usage: ten tokens, four of them in the first chunk."""
    record = msgspec.structs.replace(
        streamed(0, 2, random.Random(1)),
        chunks=(Chunk(START_NS + 80 * MS, 4, 9), Chunk(START_NS + 140 * MS, 6, 9)),
        last_token_ns=START_NS + 140 * MS,
        output_tokens=10,
        token_source=TokenSource.RUNNING_USAGE,
    )
    spread = msgspec.structs.replace(record, index=1, token_source=TokenSource.USAGE_SPREAD)

    told, guessed = exported(run_of(record, spread))

    assert told["metrics"]["inter_token_latency"]["value"] == pytest.approx(60 / 6)
    assert guessed["metrics"]["inter_token_latency"]["value"] == pytest.approx(60 / 9)


def test_failures_have_an_error_and_no_metrics_and_what_was_never_sent_no_line() -> None:
    cut = msgspec.structs.replace(
        streamed(6, 3, random.Random(1)), failure=Failure.CUT_OFF, message="in flight at the hard stop"
    )
    run = small_run()
    found = exported(run_of(*run.requests, cut))

    assert len(found) == 5  # four streams, the cut one; the plain one has no dispatch, one was never sent
    assert (found[-1]["metrics"], found[-1]["error"]["type"]) == ({}, "cut_off")
    assert found[-1]["metadata"]["was_cancelled"] is True
    exported_run = aiperf.export_run(run)
    assert "2 requests were never sent" in " ".join(exported_run.remarks)
    back = aiperf.import_run(b"\n".join(json.dumps(line).encode() for line in found)).records
    assert back[-1].failure is Failure.CUT_OFF


def test_trap_24_an_unknown_count_is_left_out_and_stays_unknown() -> None:
    unknown = msgspec.structs.replace(
        streamed(0, 4, random.Random(1)), prompt_tokens=None, output_tokens=None, cached_tokens=None
    )
    [line] = exported(run_of(unknown))

    assert not {name for name in line["metrics"] if "usage" in name or "sequence_length" in name}
    [back] = aiperf.import_run(json.dumps(line).encode()).records
    assert (back.prompt_tokens, back.output_tokens, back.cached_tokens) == (None, None, None)


@pytest.mark.parametrize("data", [b"", b"no", b'{"request_latency": {"avg": 1}}'])
def test_what_are_no_records_is_refused(data: bytes) -> None:
    with pytest.raises(BadForeignFile):
        aiperf.import_run(data)
