"""What is kept of one run, beside its requests.

Figures are never the truth: a `RunRecord` read from a file has them computed anew from its requests. Those
that were written are kept as bytes, so that `verification.py` can hold the two against each other.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from sluice_bench.calibration import Calibration
from sluice_bench.engine_load import LoadSample
from sluice_bench.environment import Environment
from sluice_bench.metrics import Objective, Summary, summarise
from sluice_bench.recording.digest import figures_json, records_sha256, sha256
from sluice_bench.records import RequestRecord
from sluice_bench.stats.estimate import Estimate

SCHEMA = 1
"""Of the file; a reader refuses a higher one."""


class LoadSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How the load was put on."""

    loop: Literal["open", "closed"]
    concurrency: int | None = None
    sessions: bool = False
    """Of a closed loop: its users held conversations, with thinking times."""
    rate_per_s: float | None = None
    arrival: str = ""
    cv: float | None = None
    """Of the gaps between arrivals, where they follow one distribution."""
    schedule_sha256: str = ""
    """Of an open loop's due times."""
    seed: int
    warm_up_requests: int = 0
    """Sent before the measured ones, under the same load."""
    processes: int = 1
    """Of the client; fewer than were asked for where there was no work for all."""
    warm_connections: int
    request_timeout_s: float
    hard_stop_s: float


class ServerState(msgspec.Struct, frozen=True, kw_only=True):
    """Who was asked, and what it said of itself."""

    url: str
    model: str
    metrics_before: str = ""
    """Its page of Prometheus metrics before the load; empty when it has none."""
    metrics_after: str = ""
    samples: tuple[LoadSample, ...] = ()
    """Its own word on its load, once a second while the run lasted; none when it has no such page."""


class Stopping(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a rule that may end a run before all is sent."""

    rule: str
    """As it was typed: `ttft-p50:5%`."""
    reached: bool
    planned: int
    """Requests there would have been without it."""
    estimate: Estimate | None
    """Seconds, and bounds that hold at all looks at once; `None` when no request has the figure."""


class RunMeta(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about a run but its requests and its figures."""

    schema: int = SCHEMA
    variant: str
    """What was measured, in the user's word."""
    command: str
    """As it was typed, keys and headers left out."""
    started_utc: str
    start_ns: int
    """Of the first measured request's schedule, on the clock of all stamps."""
    environment: Environment
    load: LoadSettings
    workload: str
    """A suite or a preset."""
    workload_sha256: str = ""
    """Of its items, whoever is asked and how."""
    requests_sha256: str
    """Of what was sent, without host and credentials: equal for two runs that asked the same."""
    objective: Objective
    server: ServerState
    calibration: Calibration
    stopping: Stopping | None = None
    records_sha256: str = ""
    figures_sha256: str = ""


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One run."""

    meta: RunMeta
    requests: tuple[RequestRecord, ...]
    """In the order of their index, warm-up included."""
    figures: bytes
    """The summary as it was written: canonical JSON."""

    @property
    def measured(self) -> tuple[RequestRecord, ...]:
        """The requests that figures are of."""
        return tuple(record for record in self.requests if record.phase == "measured")

    @property
    def summary(self) -> Summary:
        """Computed from the requests. Raises `ValueError` when there are none."""
        return summarise(self.requests, self.meta.objective, self.meta.load.concurrency or 1)


def recorded(meta: RunMeta, requests: tuple[RequestRecord, ...]) -> RunRecord:
    """A run as it is written: `meta` gets its digests. Raises `ValueError` without requests."""
    ordered = tuple(sorted(requests, key=lambda record: record.index))
    figures = figures_json(summarise(ordered, meta.objective, meta.load.concurrency or 1))
    meta = msgspec.structs.replace(
        meta, records_sha256=records_sha256(ordered), figures_sha256=sha256(figures)
    )
    return RunRecord(meta=meta, requests=ordered, figures=figures)
