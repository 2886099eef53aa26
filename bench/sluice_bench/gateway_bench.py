"""The gateway bench as a whole: which lanes, how much of each, what is kept when only some are run again.

A lane's result holds everything that its part of the page shows, with when and at which commit it was
measured. So a later run of some lanes leaves the others as they are, and an interrupted run has lost only
the lane that it was in. A lane that cannot be measured leaves its reason.
"""

from __future__ import annotations

import datetime
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from sluice_bench import gateway_lanes
from sluice_bench.environment import Environment, describe
from sluice_bench.gateway_lanes import LaneContext
from sluice_bench.gateway_overhead import KINDS, OverheadRow
from sluice_bench.gateway_rows import (
    BlockRow,
    CostLoad,
    LatencyLoad,
    LatencyRow,
    MemoryRow,
    StreamsLoad,
    StreamsRow,
)
from sluice_bench.gateway_targets import (
    ALL_TARGETS,
    BARE_RELAY,
    DIRECT,
    FASTAPI_HTTPX,
    LITELLM_PROXY,
    PEERS,
    SGLANG,
    SLUICE,
    VLLM,
    Missing,
)
from sluice_bench.peer_packages import Programs, installed_programs
from sluice_bench.processes import ForeignCpu, ServerFailed, raise_file_limit, two_cores


class LaneName(StrEnum):
    """The lanes, in the order in which they are run."""

    PLAIN = "plain"
    STREAM = "stream"
    THROUGHPUT = "throughput"
    LATENCY = "latency"
    LARGE = "large"
    MEMORY = "memory"
    STREAMS = "streams"


LANES = tuple(LaneName)

_LOOK_S, _QUICK_LOOK_S = 1.0, 0.05
_DESCRIPTORS_PER_STREAM = 2
_DESCRIPTORS_BESIDE = 200

Row = TypeVar("Row")


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How much each lane does."""

    plain: CostLoad
    stream: CostLoad
    throughput: CostLoad
    latency: LatencyLoad
    large: CostLoad
    memory: CostLoad
    streams: tuple[StreamsLoad, ...]


def full_plan(targets: tuple[str, ...]) -> Plan:
    """About ten minutes with all targets."""
    fast = tuple(name for name in (DIRECT, BARE_RELAY, SLUICE, SGLANG, VLLM) if name in targets)
    slow = tuple(name for name in (DIRECT, FASTAPI_HTTPX, LITELLM_PROXY) if name in targets)
    cost = CostLoad(targets=targets, kinds=("plain",), connections=16, seconds=1.6, repeats=5)
    change = msgspec.structs.replace
    return Plan(
        plain=cost,
        stream=change(cost, kinds=("stream",)),
        throughput=change(cost, kinds=KINDS, connections=32, seconds=2.0, pin=True),
        latency=LatencyLoad(groups=(fast, slow), rounds=(2500, 250), repeats=5),
        large=change(cost, connections=4, seconds=1.0, large=True),
        memory=change(cost, kinds=KINDS, seconds=1.5, repeats=1),
        streams=(
            StreamsLoad(
                targets=(DIRECT, SLUICE), streams=2000, chunks_per_s=10, ramp_s=3, window_s=5, repeats=3
            ),
            StreamsLoad(
                targets=(DIRECT, SLUICE), streams=5000, chunks_per_s=4, ramp_s=6, window_s=5, repeats=2
            ),
        ),
    )


def quick_plan(targets: tuple[str, ...]) -> Plan:
    """Some seconds, to see that it all works; the figures mean nothing."""
    plan, change = full_plan(targets), msgspec.structs.replace
    tiny = {"connections": 4, "seconds": 0.1, "repeats": 2, "chunks": 20}
    streams = [
        change(load, streams=count, chunks_per_s=20, ramp_s=0.3, window_s=0.5, repeats=1)
        for load, count in zip(plan.streams, (50, 100), strict=True)
    ]
    return Plan(
        plain=change(plan.plain, **tiny),
        stream=change(plan.stream, **tiny),
        throughput=change(plan.throughput, **tiny),
        latency=change(plan.latency, rounds=(40, 10), repeats=2),
        large=change(plan.large, connections=2, seconds=0.1, repeats=2),
        memory=change(plan.memory, **tiny | {"repeats": 1}),
        streams=tuple(streams),
    )


class LaneResult(msgspec.Struct, Generic[Row], frozen=True, kw_only=True):
    """One lane, measured."""

    measured_at: str
    """UTC, ISO 8601."""
    commit: str
    seconds: float
    """That it took, starting the servers included."""
    rows: list[Row]
    missing: list[Missing] = []
    blocks: list[BlockRow] = []
    """Of the lane with large prompts."""


class GatewayBench(msgspec.Struct, frozen=True, kw_only=True):
    """Everything measured: what the raw file holds and the page shows."""

    command: str
    quick: bool
    environment: Environment
    plan: Plan
    pinned: bool
    """Whether the throughput lane had cores of its own for gateway and client."""
    foreign_before: float
    """Cores that others kept busy just before the first lane."""
    plain: LaneResult[OverheadRow] | None = None
    stream: LaneResult[OverheadRow] | None = None
    throughput: LaneResult[OverheadRow] | None = None
    latency: LaneResult[LatencyRow] | None = None
    large: LaneResult[OverheadRow] | None = None
    memory: LaneResult[MemoryRow] | None = None
    streams: LaneResult[StreamsRow] | None = None
    failed: dict[str, str] = {}
    """Lanes that could not be measured, and why."""


class BenchSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What to measure."""

    command: str
    peers_folder: Path
    quick: bool = False
    lanes: tuple[LaneName, ...] = LANES
    peers: bool = True
    """Whether other projects' gateways are installed and measured beside ours."""

    @property
    def plan(self) -> Plan:
        """Of all lanes."""
        targets = tuple(name for name in ALL_TARGETS if self.peers or name not in PEERS)
        return quick_plan(targets) if self.quick else full_plan(targets)


def number_of_steps(settings: BenchSettings) -> int:
    """How often `on_step` is called when every target can be measured."""
    plan, steps = settings.plan, len(PEERS) if settings.peers else 0
    for lane in settings.lanes:
        match lane:
            case LaneName.PLAIN | LaneName.STREAM | LaneName.THROUGHPUT | LaneName.LARGE:
                load: CostLoad = getattr(plan, lane)
                steps += 2 * len(load.targets) - 1 + load.repeats * len(load.kinds) * len(load.targets)
                steps += (1 + load.repeats) * (lane is LaneName.LARGE)
            case LaneName.LATENCY:
                names = {name for group in plan.latency.groups for name in group}
                steps += 2 * len(names) - 1 + plan.latency.repeats * len(plan.latency.groups)
            case LaneName.MEMORY:
                steps += 2 * len(plan.memory.targets) - 1
            case LaneName.STREAMS:
                steps += sum(len(load.targets) * (1 + load.repeats) - 1 for load in plan.streams)
    return steps


def run_bench(
    settings: BenchSettings,
    earlier: GatewayBench | None,
    on_step: Callable[[str], None],
    on_lane: Callable[[GatewayBench], None],
) -> GatewayBench:
    """Measure the lanes one after another; `on_lane` gets the state after each. `earlier` fills the rest."""
    bench = GatewayBench(
        command=settings.command,
        quick=settings.quick,
        environment=describe(),
        plan=settings.plan,
        pinned=two_cores() is not None,
        foreign_before=_foreign_cores(_QUICK_LOOK_S if settings.quick else _LOOK_S),
    )
    if earlier is not None and earlier.quick == settings.quick:
        kept = {lane: getattr(earlier, lane) for lane in LANES}
        bench = msgspec.structs.replace(bench, **kept, failed=earlier.failed)
    packages = PEERS if settings.peers else {}
    programs = installed_programs(packages, settings.peers_folder, on_step)
    for lane in settings.lanes:
        bench = _with_lane(bench, lane, programs, on_step)
        on_lane(bench)
    return bench


def _foreign_cores(look_s: float) -> float:
    foreign = ForeignCpu(os.getpid())
    time.sleep(look_s)
    return foreign.cores()


def _with_lane(
    bench: GatewayBench, lane: LaneName, programs: Programs, on_step: Callable[[str], None]
) -> GatewayBench:
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as name:
        context = LaneContext(
            folder=Path(name),
            programs=programs,
            on_step=lambda step: on_step(f"{lane}: {step}"),
            cores=two_cores(),
        )
        try:
            found = _MEASURES[lane](context, bench.plan)
        except (ServerFailed, OSError) as error:
            return msgspec.structs.replace(bench, failed={**bench.failed, lane: str(error)})
    result = msgspec.structs.replace(
        found,
        measured_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
        commit=bench.environment.commit,
        seconds=time.monotonic() - started,
    )
    failed = {name: reason for name, reason in bench.failed.items() if name != lane}
    return msgspec.structs.replace(bench, failed=failed, **{lane: result})


def _result(rows: list[Row], missing: list[Missing], blocks: list[BlockRow] | None = None) -> LaneResult[Row]:
    """Without when and where, which are filled in for all lanes alike."""
    return LaneResult(measured_at="", commit="", seconds=0.0, rows=rows, missing=missing, blocks=blocks or [])


def _large(context: LaneContext, plan: Plan) -> LaneResult[OverheadRow]:
    rows, missing = gateway_lanes.measure_cost(context, plan.large)
    return _result(rows, missing, gateway_lanes.measure_blocks(context, plan.large))


def _streams(context: LaneContext, plan: Plan) -> LaneResult[StreamsRow]:
    limit = raise_file_limit()
    rows: list[StreamsRow] = []
    missing: list[Missing] = []
    for load in plan.streams:
        needed = load.streams * _DESCRIPTORS_PER_STREAM + _DESCRIPTORS_BESIDE
        if limit < needed:
            reason = f"{load.streams:,} streams need {needed:,} open files, the limit is {limit:,}"
            missing += [Missing(name, reason) for name in load.targets]
            continue
        found, without = gateway_lanes.measure_streams(context, load)
        rows += found
        missing += without
    return _result(rows, missing)


_MEASURES: Mapping[LaneName, Callable[[LaneContext, Plan], LaneResult[Any]]] = {
    LaneName.PLAIN: lambda context, plan: _result(*gateway_lanes.measure_cost(context, plan.plain)),
    LaneName.STREAM: lambda context, plan: _result(*gateway_lanes.measure_cost(context, plan.stream)),
    LaneName.THROUGHPUT: lambda context, plan: _result(*gateway_lanes.measure_cost(context, plan.throughput)),
    LaneName.LATENCY: lambda context, plan: _result(*gateway_lanes.measure_latency(context, plan.latency)),
    LaneName.LARGE: _large,
    LaneName.MEMORY: lambda context, plan: _result(*gateway_lanes.measure_memory(context, plan.memory)),
    LaneName.STREAMS: _streams,
}
