"""A run that another tool measured, as a run file of ours: what it says of its requests, all else unknown.

Such a run has no calibration, so it counts as void: nobody knows the error of the client that measured it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from sluice_bench.calibration import Calibration
from sluice_bench.convert.field_map import BadForeignFile, Refused
from sluice_bench.environment import Environment
from sluice_bench.metrics import Objective
from sluice_bench.recording.digest import sha256
from sluice_bench.recording.run_record import LoadSettings, RunMeta, RunRecord, ServerState, recorded
from sluice_bench.records import Chunk, RequestRecord, TokenSource

UNKNOWN = "unknown"

SAME_READ_NS = 50_000
"""Events that a client stamps one by one, but took out of one read, are no further apart."""


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """What a file of another tool says."""

    tool: str
    records: Sequence[RequestRecord]
    model: str = ""
    started_utc: str = ""
    concurrency: int | None = None
    rate_per_s: float | None = None
    refused: Sequence[Refused] = ()
    remarks: Sequence[str] = ()


def run_of(imported: Imported, data: bytes, name: str) -> RunRecord:
    """As a run; `data` are the bytes of the file `name`. Raises `BadForeignFile` without requests."""
    if not imported.records:
        raise BadForeignFile(f"{name} has no requests")
    loop: Literal["open", "closed"] = "closed" if imported.concurrency is not None else "open"
    meta = RunMeta(
        variant="",
        command=f"imported from {imported.tool}: {name}",
        started_utc=imported.started_utc,
        start_ns=min(record.scheduled_ns for record in imported.records),
        environment=_UNKNOWN_MACHINE,
        load=LoadSettings(
            loop=loop,
            concurrency=imported.concurrency,
            rate_per_s=imported.rate_per_s,
            seed=0,
            warm_connections=0,
            request_timeout_s=0.0,
            hard_stop_s=0.0,
        ),
        workload=f"of {imported.tool}",
        requests_sha256=sha256(data),
        objective=Objective(),
        server=ServerState(url="", model=imported.model),
        calibration=Calibration(
            probes=0,
            null_p50_ms=None,
            null_p99_ms=None,
            dispatch_lag_p99_ms=0.0,
            reference_p99_ms=None,
        ),
    )
    return recorded(meta, tuple(imported.records))


def chunks_of(stamps: Sequence[int], tokens: int | None) -> tuple[tuple[Chunk, ...], TokenSource]:
    """One token a chunk where there are as many tokens as chunks; else nobody knows which has how many.

    One event more, that came in one read with the one before it, is taken for that of the finish.
    """
    if len(stamps) > 1 and tokens == len(stamps) - 1 and stamps[-1] - stamps[-2] < SAME_READ_NS:
        stamps = stamps[:-1]
    if tokens is None or tokens != len(stamps):
        return (), TokenSource.NONE if tokens is None else TokenSource.USAGE
    return tuple(Chunk(stamp, 1, 0) for stamp in stamps), TokenSource.USAGE_SPREAD


_UNKNOWN_MACHINE = Environment(
    cpu=UNKNOWN,
    cores=0,
    memory_gib=0.0,
    system=UNKNOWN,
    python=UNKNOWN,
    commit=UNKNOWN,
    packages={},
    load_average=0.0,
)
