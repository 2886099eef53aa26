"""To and from AIPerf's records, `profile_export.jsonl`. Its aggregates alone cannot be taken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import msgspec

from sluice_bench.convert.aiperf_fields import (
    METRICS,
    REFUSED_METADATA,
    REFUSED_METRICS,
    REFUSED_OF_OURS,
    REMARKS,
    TAKEN_METADATA,
    TAKEN_METRICS,
    metric_entries,
    to_ns,
)
from sluice_bench.convert.field_map import (
    BadForeignFile,
    Exported,
    Json,
    Refused,
    decoded,
    refusals,
    unknown_fields,
)
from sluice_bench.convert.imported_run import Imported, chunks_of
from sluice_bench.convert.wall_clock import REMARK, WallClock, utc
from sluice_bench.recording.run_record import RunRecord
from sluice_bench.records import Failure, Phase, RequestRecord

TOOL = "aiperf"
_PHASES: dict[Phase, str] = {"warm_up": "warmup", "measured": "profiling"}


# --- to --------------------------------------------------------------------------------------------------


def export_run(run: RunRecord) -> Exported:
    """A line for each request that was sent."""
    clock = WallClock(run.meta)
    sent = [record for record in run.requests if record.dispatched_ns is not None]
    lines = [_line(record, clock) for record in sent]
    remarks = [*REMARKS, REMARK]
    if unsent := len(run.requests) - len(sent):
        remarks.append(f"{unsent} requests were never sent and have no line.")
    return Exported(
        document=b"".join(msgspec.json.encode(line) + b"\n" for line in lines),
        refused=refusals(REFUSED_OF_OURS),
        remarks=remarks,
    )


def _line(record: RequestRecord, clock: WallClock) -> Json:
    cancelled = record.failure is Failure.CUT_OFF
    failed = record.failure is not None
    metadata = {
        "session_num": record.index,
        "conversation_id": record.item or None,
        "credit_issued_ns": clock.ns(record.scheduled_ns),
        "request_start_ns": clock.ns(record.dispatched_ns),
        "request_ack_ns": clock.ns(record.headers_ns),
        "request_end_ns": clock.ns(record.end_ns),
        "worker_id": f"client-{record.shard}",
        "record_processor_id": "sluice-bench",
        "benchmark_phase": _PHASES[record.phase],
        "was_cancelled": cancelled,
        "cancellation_time_ns": clock.ns(record.end_ns) if cancelled else None,
    }
    error = {"code": record.status, "type": str(record.failure), "message": record.message or "failed"}
    return {
        "metadata": metadata,
        "metrics": {} if failed else metric_entries(record),
        "error": error if failed else None,
    }


# --- from ------------------------------------------------------------------------------------------------


def import_run(data: bytes) -> Imported:
    """What the lines say of their requests. Raises `BadForeignFile`."""
    lines = [decoded(line, f"line {n} of AIPerf's records") for n, line in _numbered(data)]
    if not lines or not all(isinstance(line, dict) and "metadata" in line for line in lines):
        raise BadForeignFile(
            "AIPerf's records have a line with metadata for each request; take profile_export.jsonl, not the "
            "aggregates beside it"
        )
    records = [_record(index, line) for index, line in enumerate(lines)]
    first_ns = min(record.scheduled_ns for record in records)
    return Imported(
        tool=TOOL,
        records=records,
        started_utc=utc(first_ns),
        refused=_refused(lines, records),
        remarks=("AIPerf's times are of the wall clock, which may step.",),
    )


def _numbered(data: bytes) -> list[tuple[int, bytes]]:
    return [(n, line) for n, line in enumerate(data.splitlines(), 1) if line.strip()]


def _record(index: int, line: Json) -> RequestRecord:
    metadata, metrics, error = line["metadata"], line.get("metrics") or {}, line.get("error")
    start: int = metadata["request_start_ns"]
    outline = RequestRecord(
        index=index,
        item=metadata.get("conversation_id") or "",
        phase="warm_up" if metadata.get("benchmark_phase") == "warmup" else "measured",
        stream="time_to_first_token" in metrics,
        scheduled_ns=metadata.get("credit_issued_ns") or start,
        dispatched_ns=start,
        headers_ns=metadata.get("request_ack_ns"),
        end_ns=metadata["request_end_ns"],
        asked_tokens=_count(metrics, "requested_osl"),
    )
    if error is not None:
        return msgspec.structs.replace(
            outline,
            stream=True,
            failure=_failure(metadata, error),
            status=error.get("code"),
            message=str(error.get("message") or "")[:300],
        )
    return _with_answer(outline, start, metrics)


def _with_answer(record: RequestRecord, start: int, metrics: Json) -> RequestRecord:
    ttft, latency = to_ns(metrics.get("time_to_first_token")), to_ns(metrics.get("request_latency"))
    tokens = _count(metrics, "usage_completion_tokens")
    if tokens is None:
        tokens = _count(metrics, "output_sequence_length")
    prompt = _count(metrics, "usage_prompt_tokens")
    chunks, source = chunks_of(_stamps(start, ttft, metrics.get("inter_chunk_latency")), tokens)
    answer = to_ns(metrics.get("time_to_first_output_token"))
    return msgspec.structs.replace(
        record,
        first_token_ns=None if ttft is None else start + ttft,
        first_answer_ns=None if answer is None else start + answer,
        last_token_ns=None if latency is None else start + latency,
        chunks=chunks,
        token_source=source,
        prompt_tokens=_count(metrics, "input_sequence_length") if prompt is None else prompt,
        output_tokens=tokens,
        cached_tokens=_count(metrics, "usage_prompt_cache_read_tokens"),
    )


def _stamps(start: int, ttft: int | None, gaps: object) -> list[int]:
    if ttft is None:
        return []
    values = gaps["value"] if isinstance(gaps, dict) else []
    return list(accumulate((round(gap * 1e6) for gap in values), initial=start + ttft))


def _count(metrics: Json, name: str) -> int | None:
    metric = metrics.get(name)
    return None if not isinstance(metric, dict) else int(metric["value"])


def _failure(metadata: Json, error: Json) -> Failure:
    if metadata.get("was_cancelled"):
        return Failure.CUT_OFF
    kind, code = str(error.get("type")), error.get("code")
    names = {
        "Timeout": Failure.TIMEOUT,
        "ClientConnector": Failure.CONNECT_FAILED,
        "Disconnected": Failure.CONNECTION_LOST,
        "ClientOSError": Failure.CONNECTION_LOST,
        **{failure.value: failure for failure in Failure},
    }
    found = next((failure for word, failure in names.items() if word in kind), None)
    if found is not None:
        return found
    return Failure.HTTP_STATUS if isinstance(code, int) and code >= 400 else Failure.PROTOCOL


def _family(name: str) -> str:
    """A metric's name, or what stands for many of one kind."""
    return "http_req_*" if name.startswith("http_req_") else name


def _refused(lines: Sequence[Any], records: Sequence[RequestRecord]) -> list[Refused]:
    metadata = Counter(name for line in lines for name in line["metadata"])
    metrics = Counter(_family(name) for line in lines for name in line.get("metrics") or {})
    found = [
        *refusals(REFUSED_METADATA, metadata),
        *refusals(REFUSED_METRICS, metrics),
        *unknown_fields(metadata, {*TAKEN_METADATA, *REFUSED_METADATA}, "metadata."),
        *unknown_fields(
            metrics, {*TAKEN_METRICS, *REFUSED_METRICS, *(field.theirs for field in METRICS)}, "metrics."
        ),
        *refusals({"trace_data": "no place in our records"}, {name for line in lines for name in line}),
    ]
    done = [record for record in records if record.failure is None and record.stream]
    if unequal := sum(not record.chunks for record in done):
        why = f"{unequal} of {len(done)} answers have other numbers of chunks and tokens, so which chunk has "
        found.append(Refused("inter_chunk_latency", f"{why}how many is unknown"))
    return found
