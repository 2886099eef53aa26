"""To and from GuideLLM's report, the JSON that `guidellm benchmark` writes."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from sluice_bench.convert.field_map import (
    BadForeignFile,
    Exported,
    Json,
    Refused,
    decoded,
    refusals,
    unknown_fields,
    values,
)
from sluice_bench.convert.figures import NS, stats
from sluice_bench.convert.guidellm_fields import (
    FIGURES,
    REFUSED_OF_OURS,
    REFUSED_OF_THEIRS,
    REFUSED_TIMINGS,
    REMARKS,
    SUMMARISED,
    TAKEN,
    TAKEN_TIMINGS,
)
from sluice_bench.convert.imported_run import Imported
from sluice_bench.convert.wall_clock import REMARK, WallClock, utc
from sluice_bench.recording.run_record import RunRecord
from sluice_bench.records import Failure, RequestRecord, TokenSource

TOOL = "guidellm"
_PERCENTILES = {
    "p001": 0.001,
    "p01": 0.01,
    "p05": 0.05,
    "p10": 0.1,
    "p25": 0.25,
    "p50": 0.5,
    "p75": 0.75,
    "p90": 0.9,
    "p95": 0.95,
    "p99": 0.99,
    "p999": 0.999,
}
_INCOMPLETE = (Failure.NOT_SENT, Failure.CUT_OFF)

Groups = dict[str, list[RequestRecord]]


# --- to --------------------------------------------------------------------------------------------------


def export_run(run: RunRecord) -> Exported:
    """The measured requests of a run, as one benchmark."""
    clock = WallClock(run.meta)
    records = [record for record in run.requests if record.phase == "measured"]
    groups: Groups = {
        "successful": [record for record in records if record.failure is None],
        "errored": [r for r in records if r.failure is not None and r.failure not in _INCOMPLETE],
        "incomplete": [record for record in records if record.failure in _INCOMPLETE],
    }
    benchmark = {
        "type_": "generative_benchmark",
        "metrics": _metrics(groups, records),
        "requests": {
            name: [_entry(record, name, clock) for record in found] for name, found in groups.items()
        }
        | {"total": None},
        "start_time": clock.seconds(min((r.scheduled_ns for r in records), default=None)),
        "end_time": clock.seconds(max((r.end_ns for r in records if r.end_ns is not None), default=None)),
    }
    report = {"metadata": {"version": 2}, "benchmarks": [benchmark]}
    return Exported(
        document=msgspec.json.encode(report), refused=refusals(REFUSED_OF_OURS), remarks=(*REMARKS, REMARK)
    )


def _entry(record: RequestRecord, group: str, clock: WallClock) -> Json:
    status = {"successful": "completed", "errored": "errored", "incomplete": "cancelled"}[group]
    timings = {
        "targeted_start": clock.seconds(record.scheduled_ns),
        "resolve_start": clock.seconds(record.dispatched_ns),
        "request_start": clock.seconds(record.dispatched_ns),
        "first_token_iteration": clock.seconds(record.first_token_ns),
        "first_output_token_iteration": clock.seconds(record.first_answer_ns),
        "last_token_iteration": clock.seconds(record.last_token_ns if record.chunks else None),
        "token_iterations": len(record.chunks),
        "request_end": clock.seconds(record.end_ns),
        "resolve_end": clock.seconds(record.end_ns),
    }
    return {
        "type_": "generative_request_stats",
        "request_id": f"{record.index}",
        "info": {
            "request_id": f"{record.index}",
            "status": status,
            "timings": timings,
            "error": f"{record.failure}: {record.message}" if record.failure else None,
        },
        "input_metrics": {"text_tokens": record.prompt_tokens, "cached_tokens": record.cached_tokens},
        "output_metrics": {"text_tokens": record.output_tokens},
        **values(FIGURES, record),
    }


def _metrics(groups: Groups, records: Sequence[RequestRecord]) -> Json:
    totals = {name: len(found) for name, found in groups.items()} | {"total": len(records)}
    sides = {**groups, "total": list(records)}
    return {"request_totals": totals} | {
        name: {side: _summary(found, value) for side, found in sides.items()}
        for name, value in SUMMARISED.items()
    }


def _summary(records: Sequence[RequestRecord], value: Callable[[RequestRecord], float | None]) -> Json:
    """Over the requests that have the value; all zeros when none has it, as GuideLLM writes it."""
    found = [float(known) for record in records if (known := value(record)) is not None]
    of = stats(found)
    frequency = Counter(found)
    return {
        "mean": of.mean,
        "median": _percentile(frequency, 0.5),
        "mode": max(sorted(frequency), key=lambda known: frequency[known], default=0.0),
        "variance": of.std**2,
        "std_dev": of.std,
        "min": min(found, default=0.0),
        "max": max(found, default=0.0),
        "count": len(found),
        "total_sum": math.fsum(found),
        "percentiles": {name: _percentile(frequency, share) for name, share in _PERCENTILES.items()},
        "pdf": None,
    }


def _percentile(frequency: Counter[float], share: float) -> float:
    """The first value at which the running sum of shares reaches `share`; rounding of that sum included."""
    count, reached, value = frequency.total(), 0.0, 0.0
    for value in sorted(frequency):
        reached += frequency[value] / count
        if reached >= share:
            break
    return value


# --- from ------------------------------------------------------------------------------------------------


def import_run(data: bytes, number: int | None = None) -> Imported:
    """What one benchmark of a report says of its requests, the `number`th from 1. Raises `BadForeignFile`."""
    report = decoded(data, "GuideLLM's report")
    benchmarks = report.get("benchmarks") if isinstance(report, dict) else None
    if not isinstance(benchmarks, list) or not benchmarks:
        raise BadForeignFile("GuideLLM's report has a list `benchmarks`; this file has none")
    if number is None and len(benchmarks) > 1:
        raise BadForeignFile(f"the report has {len(benchmarks)} benchmarks; choose one with --benchmark")
    if not 1 <= (number or 1) <= len(benchmarks):
        raise BadForeignFile(f"the report has {len(benchmarks)} benchmarks, so there is no {number}")
    found = sorted(_entries(benchmarks[(number or 1) - 1]), key=lambda entry: _begin(entry[1]))
    records = [_record(index, group, entry) for index, (group, entry) in enumerate(found)]
    return Imported(
        tool=TOOL,
        records=records,
        started_utc=utc(min(record.scheduled_ns for record in records)) if records else "",
        refused=_refused([entry for _, entry in found]),
        remarks=(
            "GuideLLM's times are of the wall clock, which may step, in steps of a quarter of a microsecond.",
            "It keeps no times of single chunks, so TPOT and TBT are unknown; NTPOT is not.",
        ),
    )


def _entries(benchmark: Json) -> Iterator[tuple[str, Json]]:
    groups = benchmark.get("requests") or {}
    for name in ("successful", "errored", "incomplete"):
        yield from ((name, entry) for entry in groups.get(name) or ())


def _begin(entry: Json) -> float:
    timings = entry["info"]["timings"]
    names = ("targeted_start", "resolve_start", "request_start", "queued", "resolve_end")
    return next((float(timings[name]) for name in names if timings.get(name) is not None), 0.0)


def _record(index: int, group: str, entry: Json) -> RequestRecord:
    timings = entry["info"]["timings"]

    def stamp(name: str) -> int | None:
        return None if timings.get(name) is None else round(timings[name] / NS)

    tokens = entry["output_metrics"].get("text_tokens")
    text = (entry.get("output") or "").encode("utf-8", "replace")
    last = stamp("last_token_iteration")
    failure = {"errored": Failure.PROTOCOL, "incomplete": Failure.CUT_OFF}.get(group)
    return RequestRecord(
        index=index,
        stream=last is not None or failure is not None,
        scheduled_ns=round(_begin(entry) / NS),
        dispatched_ns=stamp("request_start"),
        first_token_ns=stamp("first_token_iteration"),
        first_answer_ns=stamp("first_output_token_iteration"),
        last_token_ns=stamp("request_end") if last is None and failure is None else last,
        end_ns=stamp("request_end"),
        failure=failure,
        message=str(entry["info"].get("error") or "")[:300],
        token_source=TokenSource.NONE if tokens is None else TokenSource.USAGE,
        prompt_tokens=entry["input_metrics"].get("text_tokens"),
        output_tokens=tokens,
        cached_tokens=entry["input_metrics"].get("cached_tokens"),
        text_bytes=len(text),
        text_sha256=hashlib.sha256(text).hexdigest() if text else "",
    )


def _refused(entries: Sequence[Any]) -> list[Refused]:
    timings = {name for entry in entries for name in entry["info"]["timings"]}
    fields = {name for entry in entries for name in entry}
    return [
        *refusals(REFUSED_TIMINGS, timings),
        *refusals(REFUSED_OF_THEIRS, fields),
        *unknown_fields(timings, {*TAKEN_TIMINGS, *REFUSED_TIMINGS}, "info.timings."),
        *unknown_fields(fields, {*TAKEN, *REFUSED_OF_THEIRS}),
    ]
