"""One load on one server, as a record: what every command that measures a server calls.

`measure` sends the requests, asks the null server beside them (`calibration.py`), and describes all of it in
a `RunRecord`. It prints nothing and writes no file.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable

import msgspec

from sluice_bench.calibration import CalibratedRun, run_calibrated
from sluice_bench.environment import describe
from sluice_bench.loops import ClosedLoop, LoadPlan, OpenLoop, connections_needed
from sluice_bench.metrics import Objective
from sluice_bench.recording.digest import requests_sha256
from sluice_bench.recording.run_record import LoadSettings, RunMeta, RunRecord, ServerState, recorded
from sluice_bench.run_load import RunLoad
from sluice_bench.scrape import metrics_page
from sluice_bench.target import Target
from sluice_bench.workload import Asking
from sluice_bench.workloads.prepared import prepare

EXPECTED_TOKENS_PER_S = 20.0
"""Of one stream, to know before a run how many requests will be in flight; a slower server needs more."""


class RunSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Who is asked, for what, how, and when to give up."""

    target: Target
    asking: Asking
    load: RunLoad
    concurrency: int | None = None
    """Of a closed loop; an open one has the load's schedule."""
    objective: Objective = Objective()
    seed: int = 1
    """That the load was made with."""
    warm_connections: int | None = None
    """`None`: as many as the load needs if answers come at `EXPECTED_TOKENS_PER_S`."""
    request_timeout_s: float = 300.0
    hard_stop_s: float = 3600.0
    variant: str = ""
    command: str = ""
    """As it was typed, without secrets."""


def measure(
    settings: RunSettings, null_server: Target, on_progress: Callable[[int], None] | None = None
) -> RunRecord:
    """Carry it out. Raises `OSError` when the server is not there."""
    plan = load_plan(settings)
    started = datetime.datetime.now(datetime.UTC)
    page_before = metrics_page(settings.target.url)
    run = run_calibrated(plan, null_server, on_progress)
    server = ServerState(
        url=settings.target.url,
        model=settings.asking.model,
        metrics_before=page_before,
        metrics_after=metrics_page(settings.target.url),
    )
    return recorded(_meta(settings, plan, run, server, started), tuple(run.records))


def load_plan(settings: RunSettings) -> LoadPlan:
    """What the load client is to do."""
    schedule, items = settings.load.schedule, settings.load.workload.items
    loop = ClosedLoop(settings.concurrency or 1) if schedule is None else OpenLoop(schedule.offsets_ns)
    warm = settings.warm_connections
    if warm is None:
        answer_tokens = sum(item.max_tokens for item in items) / len(items)
        warm = connections_needed(loop, len(items), answer_tokens / EXPECTED_TOKENS_PER_S)
    return LoadPlan(
        target=settings.target,
        requests=prepare(settings.target, settings.load.workload, settings.asking),
        loop=loop,
        warm_connections=warm,
        request_timeout_s=settings.request_timeout_s,
        hard_stop_s=settings.hard_stop_s,
    )


def _meta(
    settings: RunSettings,
    plan: LoadPlan,
    run: CalibratedRun,
    server: ServerState,
    started: datetime.datetime,
) -> RunMeta:
    return RunMeta(
        variant=settings.variant,
        command=settings.command,
        started_utc=started.isoformat(timespec="seconds"),
        start_ns=min(record.scheduled_ns for record in run.records),
        environment=describe(),
        load=_load_settings(settings, plan),
        workload=settings.load.workload.name,
        workload_sha256=settings.load.workload.sha256,
        requests_sha256=requests_sha256(plan.requests),
        objective=settings.objective,
        server=server,
        calibration=run.calibration,
    )


def _load_settings(settings: RunSettings, plan: LoadPlan) -> LoadSettings:
    schedule = settings.load.schedule
    return LoadSettings(
        loop="closed" if schedule is None else "open",
        concurrency=settings.concurrency,
        rate_per_s=None if schedule is None else schedule.rate_per_s,
        arrival="" if schedule is None else schedule.kind,
        cv=None if schedule is None else schedule.cv,
        schedule_sha256="" if schedule is None else schedule.sha256,
        seed=settings.seed,
        warm_connections=plan.warm_connections,
        request_timeout_s=plan.request_timeout_s,
        hard_stop_s=plan.hard_stop_s,
    )
