"""One load on one server, as a record: what every command that measures a server calls.

`measure` sends the requests, from one process or from several (`shards.py`), asks the null server beside them
(`calibration.py`), and describes all of it in a `RunRecord`. It prints nothing and writes no file.
"""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Callable, Iterator, Sequence

import msgspec

from sluice_bench import calibration
from sluice_bench.engine_load import load_sample
from sluice_bench.environment import describe
from sluice_bench.load_run import frozen_gc, new_event_loop
from sluice_bench.loops import (
    ClosedLoop,
    LoadPlan,
    Loop,
    OpenLoop,
    SessionLoop,
    connections_needed,
    sessions_of,
)
from sluice_bench.metrics import Objective
from sluice_bench.recording.digest import requests_sha256
from sluice_bench.recording.run_record import LoadSettings, RunMeta, RunRecord, ServerState, recorded
from sluice_bench.run_load import RunLoad
from sluice_bench.runs.live import LiveCounts, OnCounts
from sluice_bench.runs.shard import ShardTask, Watch, carry_out, read_shard
from sluice_bench.runs.shards import ShardedRun, merged, run_sharded
from sluice_bench.runs.stopping import StopRule, early_stop
from sluice_bench.scrape import metrics_page
from sluice_bench.target import Target, WireRequest
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
    sessions: bool = False
    """Of a closed loop: its users go from conversation to conversation, each turn after the one before."""
    processes: int = 1
    """Of the client; more are needed where one is too slow for the load (`capacity.py`)."""
    objective: Objective = Objective()
    seed: int = 1
    """That the load was made with."""
    warm_connections: int | None = None
    """`None`: as many as the load needs if answers come at `EXPECTED_TOKENS_PER_S`."""
    request_timeout_s: float = 300.0
    hard_stop_s: float = 3600.0
    stop_when: StopRule | None = None
    """Ends the run before all is sent; the record is then that of a run of fewer requests. Of one process and
    without sessions."""
    min_probes: int | None = None
    """Of the null server; `None`: as many as a p99 of them needs to mean something."""
    variant: str = ""
    command: str = ""
    """As it was typed, without secrets."""


def measure(
    settings: RunSettings,
    null_server: Target,
    on_progress: Callable[[int], None] | None = None,
    on_counts: OnCounts | None = None,
) -> RunRecord:
    """Carry it out; `on_progress` is told once a second how many requests have ended, `on_counts` more.

    Raises `OSError` when the server is not there, and `ChildProcessError`, one of its kind, when one of
    several client processes is lost before the start.
    """
    plan = load_plan(settings)
    started = datetime.datetime.now(datetime.UTC)
    page_before = metrics_page(settings.target.url)
    sampled = settings.target if load_sample(page_before, 0) is not None else None
    with early_stop(settings.stop_when, len(settings.load.workload.items)) as stop:
        watch = None if stop is None else stop.watch
        run = _carry_out(settings, plan, null_server, sampled, _told(on_progress, on_counts), watch)
    if (unsent := len(plan.requests) - len(run.records)) > 0:
        sent = len(settings.load.workload.items) - unsent
        settings = msgspec.structs.replace(settings, load=settings.load.first(sent))
        plan = msgspec.structs.replace(plan, requests=plan.requests[:-unsent])
    server = ServerState(
        url=settings.target.url,
        model=settings.asking.model,
        metrics_before=page_before,
        metrics_after=metrics_page(settings.target.url),
        samples=run.samples,
    )
    meta = _meta(settings, plan, run, server, started)
    if stop is not None:
        meta = msgspec.structs.replace(meta, stopping=stop.outcome(run.records))
    return recorded(meta, tuple(run.records))


def _told(on_progress: Callable[[int], None] | None, on_counts: OnCounts | None) -> OnCounts:
    def tell(counts: LiveCounts) -> None:
        if on_progress is not None:
            on_progress(counts.finished)
        if on_counts is not None:
            on_counts(counts)

    return tell


def _carry_out(
    settings: RunSettings,
    plan: LoadPlan,
    null_server: Target,
    sampled: Target | None,
    on_counts: OnCounts,
    watch: Watch | None,
) -> ShardedRun:
    enough = calibration.MIN_PROBES if settings.min_probes is None else settings.min_probes
    if settings.processes > 1:
        return run_sharded(
            plan,
            settings.processes,
            null_server,
            enough_probes=enough,
            sampled_server=sampled,
            on_counts=on_counts,
        )
    task = ShardTask(plan=plan, null_server=null_server, enough_probes=enough, sampled_server=sampled)

    async def at_once() -> None:
        return None

    with frozen_gc(), asyncio.Runner(loop_factory=new_event_loop) as runner:
        raw = runner.run(carry_out(task, at_once, on_counts, watch))
    return merged([read_shard(task, raw)])


def load_plan(settings: RunSettings) -> LoadPlan:
    """What the load client is to do."""
    load, items = settings.load, settings.load.workload.items
    loop = _loop(load, settings.concurrency or 1, settings.sessions)
    warm = settings.warm_connections
    if warm is None:
        answer_tokens = sum(item.max_tokens for item in items) / len(items)
        warm = connections_needed(loop, load.requests, answer_tokens / EXPECTED_TOKENS_PER_S)
    measured = prepare(settings.target, load.workload, settings.asking)
    return LoadPlan(
        target=settings.target,
        requests=(*_warm_up_requests(settings), *measured),
        loop=loop,
        warm_connections=warm,
        request_timeout_s=settings.request_timeout_s,
        hard_stop_s=settings.hard_stop_s,
    )


def _loop(load: RunLoad, concurrency: int, sessions: bool) -> Loop:
    if load.schedule is None:
        return _session_loop(load, concurrency) if sessions else ClosedLoop(concurrency)
    if load.warm_up is None:
        return OpenLoop(load.schedule.offsets_ns)
    later = (load.warm_up.lasts_ns + offset for offset in load.schedule.offsets_ns)
    return OpenLoop((*load.warm_up.offsets_ns, *later))


def _session_loop(load: RunLoad, concurrency: int) -> SessionLoop:
    warm_up = load.warm_up.workload.items if load.warm_up else ()
    before, measured = (
        sessions_of([(item.id, item.after) for item in items]) for items in (warm_up, load.workload.items)
    )
    later = (tuple(len(warm_up) + place for place in session) for session in measured)
    return SessionLoop(
        concurrency=concurrency,
        sessions=(*before, *later),
        think_ns=tuple(item.think_ns for item in (*warm_up, *load.workload.items)),
    )


def _warm_up_requests(settings: RunSettings) -> Iterator[WireRequest]:
    """Under names of their own, since the measured ones may be made of the same prompts, otherwise tagged."""
    if settings.load.warm_up is None:
        return
    for request in prepare(settings.target, settings.load.warm_up.workload, settings.asking):
        yield msgspec.structs.replace(request, phase="warm_up", item=f"warm-up/{request.item}")


def _measured_only(requests: Sequence[WireRequest]) -> list[WireRequest]:
    return [request for request in requests if request.phase == "measured"]


def _meta(
    settings: RunSettings,
    plan: LoadPlan,
    run: ShardedRun,
    server: ServerState,
    started: datetime.datetime,
) -> RunMeta:
    return RunMeta(
        variant=settings.variant,
        command=settings.command,
        started_utc=started.isoformat(timespec="seconds"),
        start_ns=min(record.scheduled_ns for record in run.records if record.phase == "measured"),
        environment=describe(),
        load=_load_settings(settings, plan, run),
        workload=settings.load.workload.name,
        workload_sha256=settings.load.workload.sha256,
        requests_sha256=requests_sha256(_measured_only(plan.requests)),
        objective=settings.objective,
        server=server,
        calibration=run.calibration,
    )


def _load_settings(settings: RunSettings, plan: LoadPlan, run: ShardedRun) -> LoadSettings:
    schedule = settings.load.schedule
    return LoadSettings(
        loop="closed" if schedule is None else "open",
        concurrency=settings.concurrency,
        sessions=settings.sessions,
        rate_per_s=None if schedule is None else schedule.rate_per_s,
        arrival="" if schedule is None else schedule.kind,
        cv=None if schedule is None else schedule.cv,
        schedule_sha256="" if schedule is None else schedule.sha256,
        seed=settings.seed,
        warm_up_requests=len(plan.requests) - len(settings.load.workload.items),
        processes=1 + max(record.shard for record in run.records),
        warm_connections=plan.warm_connections,
        request_timeout_s=plan.request_timeout_s,
        hard_stop_s=plan.hard_stop_s,
    )
