"""Runs as CSV, one row a request, for spreadsheets and other programs.

The columns are `COLUMNS`. What is unknown is an empty cell, never 0. Times are seconds since the run's start
or, where the name ends in `_ms`, durations in milliseconds. Text that came from a server and would be a
formula in a spreadsheet gets an apostrophe in front.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping

from sluice_bench import metrics
from sluice_bench.metrics import Objective
from sluice_bench.recording.run_record import RunMeta, RunRecord
from sluice_bench.records import RequestRecord

Cell = str | int | float | bool | None

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def _stamp(name: str) -> Callable[[RequestRecord, RunMeta], Cell]:
    def since_start(record: RequestRecord, meta: RunMeta) -> Cell:
        at = getattr(record, name)
        return None if at is None else (at - meta.start_ns) * metrics.NS

    return since_start


def _duration(
    seconds: Callable[[RequestRecord], float | None],
) -> Callable[[RequestRecord, RunMeta], Cell]:
    def milliseconds(record: RequestRecord, meta: RunMeta) -> Cell:
        value = seconds(record)
        return None if value is None else value * 1000

    return milliseconds


def _good(record: RequestRecord, meta: RunMeta) -> Cell:
    """Unknown without an objective: then every complete request would be good."""
    return None if meta.objective == Objective() else metrics.is_good(record, meta.objective)


COLUMNS: Mapping[str, Callable[[RequestRecord, RunMeta], Cell]] = {
    "variant": lambda record, meta: meta.variant,
    "model": lambda record, meta: meta.server.model,
    "index": lambda record, meta: record.index,
    "item": lambda record, meta: record.item,
    "phase": lambda record, meta: record.phase,
    "stream": lambda record, meta: record.stream,
    "failure": lambda record, meta: None if record.failure is None else record.failure.value,
    "message": lambda record, meta: record.message,
    "status": lambda record, meta: record.status,
    "finish_reason": lambda record, meta: record.finish_reason,
    "backend": lambda record, meta: record.backend,
    "scheduled_s": _stamp("scheduled_ns"),
    "dispatched_s": _stamp("dispatched_ns"),
    "connected_s": _stamp("connected_ns"),
    "written_s": _stamp("written_ns"),
    "first_byte_s": _stamp("first_byte_ns"),
    "first_token_s": _stamp("first_token_ns"),
    "last_token_s": _stamp("last_token_ns"),
    "end_s": _stamp("end_ns"),
    "ttft_user_ms": _duration(metrics.ttft_user_s),
    "ttft_service_ms": _duration(metrics.ttft_service_s),
    "tpot_ms": _duration(metrics.tpot_s),
    "ntpot_ms": _duration(metrics.ntpot_s),
    "e2e_ms": _duration(metrics.e2e_s),
    "stall_ms": _duration(metrics.stall_s),
    "dispatch_lag_ms": _duration(metrics.dispatch_lag_s),
    "tokens_per_s": lambda record, meta: metrics.stream_tokens_per_s(record),
    "prompt_tokens": lambda record, meta: record.prompt_tokens,
    "cached_tokens": lambda record, meta: record.cached_tokens,
    "output_tokens": lambda record, meta: record.output_tokens,
    "asked_tokens": lambda record, meta: record.asked_tokens,
    "token_source": lambda record, meta: record.token_source.value,
    "good": _good,
}


def csv_text(runs: Iterable[tuple[str, RunRecord]]) -> str:
    """Of (name, run) pairs; the name is the first column, `run`."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["run", *COLUMNS])
    for name, run in runs:
        for record in run.requests:
            writer.writerow([_text(name), *(_text(value(record, run.meta)) for value in COLUMNS.values())])
    return stream.getvalue()


def _text(cell: Cell) -> str:
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, str):
        return "'" + cell if cell.startswith(_FORMULA) else cell
    return repr(cell)
