"""The lanes of `sluice-bench gateway`: each starts what it needs, loads it in turn, and returns its rows.

A lane asks one question; nothing is shared between lanes, so that each can be run alone. Within a repeat the
targets take turns. How many requests make up a repeat is found per target from its own speed while warming
up, so that a slow peer takes no longer than a fast one. A peer that fails its warm-up is left out, with the
reason; Sluice or the null server failing theirs ends the lane.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec

from sluice_bench import arrivals
from sluice_bench.answers import read_answers
from sluice_bench.chunk_delay import (
    StampedStream,
    due_delays_ms,
    read_stream,
    sent_delays_ms,
    while_all_ran,
)
from sluice_bench.connection import Exchange
from sluice_bench.gateway_overhead import (
    KINDS,
    Kind,
    OverheadRow,
    in_turn,
    load_plan,
    measure_load,
    require_answers,
    span_s,
)
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
    DIRECT,
    SLUICE,
    Fleet,
    FleetPlan,
    GatewayTarget,
    Missing,
    running_fleet,
)
from sluice_bench.interleave import Leg, run_interleaved
from sluice_bench.load_run import run_blocking
from sluice_bench.loop_block import answer_times_ms, lag_histogram, longest_lag_s, run_probed
from sluice_bench.loops import LoadPlan, OpenLoop
from sluice_bench.peer_packages import Programs
from sluice_bench.processes import ForeignCpu, ServerFailed, null_server_process, pinned
from sluice_bench.stats.percentile import percentile_of
from sluice_bench.target import Target
from sluice_bench.workload import Asking, Shape, chat_requests

_SHAPE = Shape(prompt_words=96, output_tokens=100)
_LARGE_SHAPE = Shape(prompt_words=58_000, output_tokens=100)
"""400 KB of text."""
_LARGE_DISTINCT = 8
_MOST_REQUESTS = 60_000
_SETTLE_S = 1.0
_WARM_ROUNDS = 20


class LaneContext(msgspec.Struct, frozen=True, kw_only=True):
    """Where lanes put their files, and whom they tell what they do."""

    folder: Path
    """For configurations and logs."""
    programs: Programs
    """The other projects' gateways."""
    on_step: Callable[[str], None]
    cores: tuple[int, int] | None
    """Of a pinned lane: the gateway's, and the one of client and null server. `None`: nothing is pinned."""


# --- CPU time and throughput -----------------------------------------------------------------------------


def measure_cost(context: LaneContext, load: CostLoad) -> tuple[list[OverheadRow], list[Missing]]:
    """CPU time of closed loops. Raises `ServerFailed`."""
    rows: list[OverheadRow] = []
    server_core, client_core = context.cores if load.pin and context.cores else (None, None)
    plan = FleetPlan(
        targets=load.targets,
        chunks=load.chunks,
        pace_ms=load.pace_ms,
        server_core=server_core,
        null_core=client_core,
    )
    with pinned(client_core), _fleet(context, plan) as fleet:
        counts = _warm_up(context, fleet, load)
        for repeat in range(load.repeats):
            for kind in load.kinds:
                for target in in_turn(fleet.targets, repeat):
                    context.on_step(f"{target.name}, {kind}, repeat {repeat + 1}")
                    asked = _cost_plan(target, kind, load, counts[target.name, kind])
                    rows.append(measure_load(target, kind, repeat, asked))
    return rows, fleet.missing


def _fleet(context: LaneContext, plan: FleetPlan) -> AbstractContextManager[Fleet]:
    return running_fleet(plan, context.folder, context.programs, context.on_step)


def _warm_up(context: LaneContext, fleet: Fleet, load: CostLoad) -> dict[tuple[str, Kind], int]:
    """Requests per repeat of each target and kind; targets that fail are dropped. Raises `ServerFailed`."""
    counts: dict[tuple[str, Kind], int] = {}
    for target in list(fleet.targets):
        context.on_step(f"warming up {target.name}")
        try:
            for kind in load.kinds:
                counts[target.name, kind] = _size_repeat(target, kind, load)
        except ServerFailed as error:
            _drop(fleet, target, error)
    return counts


def _drop(fleet: Fleet, target: GatewayTarget, error: ServerFailed) -> None:
    if target.name in (DIRECT, SLUICE):
        raise error
    fleet.drop(target, str(error).splitlines()[0])


def _size_repeat(target: GatewayTarget, kind: Kind, load: CostLoad) -> int:
    def run(count: int) -> float:
        exchanges = run_blocking(_cost_plan(target, kind, load, count))
        require_answers(target, kind, exchanges)
        return span_s(exchanges)

    if run(load.connections) >= load.seconds:
        return load.connections
    return count_for(load.seconds, load.connections, run)


def count_for(seconds: float, at_least: int, run: Callable[[int], float]) -> int:
    """How many requests take `seconds`, from trials of growing length; `run(count)` returns seconds."""
    count = 2 * at_least
    while True:
        took_s = max(1e-6, run(count))
        enough = took_s >= seconds / 4 or count * 4 > _MOST_REQUESTS
        if enough:
            return min(_MOST_REQUESTS, max(at_least, round(count * seconds / took_s)))
        count *= 4


def _cost_plan(target: GatewayTarget, kind: Kind, load: CostLoad, count: int) -> LoadPlan:
    if load.large:
        return load_plan(target, kind, load.connections, count, _LARGE_SHAPE, _LARGE_DISTINCT)
    return load_plan(target, kind, load.connections, count)


# --- the event loop under large prompts ------------------------------------------------------------------


def measure_blocks(context: LaneContext, load: CostLoad) -> list[BlockRow]:
    """How long Sluice's event loop stands still, one request at a time. Raises `ServerFailed`.

    It has a core of its own where that can be had: waiting for a core is not a block of the loop.
    """
    load = msgspec.structs.replace(load, connections=1)
    server_core, client_core = context.cores or (None, None)
    plan = FleetPlan(targets=(SLUICE,), server_core=server_core, null_core=client_core)
    with (
        pinned(client_core),
        _fleet(context, plan) as fleet,
        null_server_process(context.folder, core=client_core) as idle,
    ):
        target = fleet.targets[0]
        count = _size_repeat(target, "plain", load)
        return [
            _probe_loop(context, target, Target.parse(idle.url), load, count, repeat)
            for repeat in range(load.repeats)
        ]


def _probe_loop(
    context: LaneContext, target: GatewayTarget, idle: Target, load: CostLoad, count: int, repeat: int
) -> BlockRow:
    context.on_step(f"{target.name}, event loop, repeat {repeat + 1}")
    foreign = ForeignCpu(os.getpid())
    before = lag_histogram(target.server.url)
    probed = run_probed(_cost_plan(target, "plain", load, count), idle)
    require_answers(target, "large", probed.load)
    lag_s = longest_lag_s(before, lag_histogram(target.server.url))
    probes, own = answer_times_ms(probed.probes), answer_times_ms(probed.own)
    return BlockRow(
        target=target.name,
        repeat=repeat,
        probes=len(probes),
        probe_p50_ms=_percentile(probes, 0.5),
        probe_p99_ms=_percentile(probes, 0.99),
        probe_max_ms=max(probes, default=0.0),
        own_p99_ms=_percentile(own, 0.99),
        own_max_ms=max(own, default=0.0),
        lag_histogram_ms=None if lag_s is None else lag_s * 1000,
        foreign_cores=foreign.cores(),
    )


# --- latency ---------------------------------------------------------------------------------------------


def measure_latency(context: LaneContext, load: LatencyLoad) -> tuple[list[LatencyRow], list[Missing]]:
    """Added latency at concurrency 1. Raises `ServerFailed`."""
    rows: list[LatencyRow] = []
    names = tuple(dict.fromkeys(name for group in load.groups for name in group))
    with _fleet(context, FleetPlan(targets=names)) as fleet:
        _warm_up_latency(context, fleet)
        for repeat in range(load.repeats):
            for group, rounds in zip(load.groups, load.rounds, strict=True):
                targets = [target for target in fleet.targets if target.name in group]
                if len(targets) > 1:
                    context.on_step(f"{', '.join(target.name for target in targets)}, repeat {repeat + 1}")
                    rows += _latency_rows(targets, rounds, repeat)
    return rows, fleet.missing


def _warm_up_latency(context: LaneContext, fleet: Fleet) -> None:
    for target in list(fleet.targets):
        context.on_step(f"warming up {target.name}")
        try:
            answers = run_interleaved([_leg(target, _WARM_ROUNDS)], _WARM_ROUNDS, seed=0)
            require_answers(target, "plain", answers[target.name])
        except ServerFailed as error:
            _drop(fleet, target, error)


def _leg(target: GatewayTarget, rounds: int) -> Leg:
    return Leg(
        target.name,
        Target.parse(target.server.url),
        load_plan(target, "plain", connections=1, count=rounds).requests,
    )


def _latency_rows(targets: Sequence[GatewayTarget], rounds: int, repeat: int) -> list[LatencyRow]:
    foreign = ForeignCpu(os.getpid())
    answers = run_interleaved([_leg(target, rounds) for target in targets], rounds, seed=repeat)
    foreign_cores = foreign.cores()
    times = {name: [_answer_us(exchange) for exchange in found] for name, found in answers.items()}
    return [
        latency_row(target.name, repeat, times[target.name], times[DIRECT], foreign_cores)
        for target in targets
    ]


def _answer_us(exchange: Exchange) -> float | None:
    if read_answers([exchange])[0].failure is not None:
        return None
    assert exchange.end_ns is not None and exchange.written_ns is not None
    return (exchange.end_ns - exchange.written_ns) / 1000


def latency_row(
    name: str,
    repeat: int,
    times_us: Sequence[float | None],
    direct_us: Sequence[float | None],
    foreign_cores: float,
) -> LatencyRow:
    """Of one target's answers and those of the null server in the same rounds; `None` is a failure."""
    pairs = [
        (ours, direct)
        for ours, direct in zip(times_us, direct_us, strict=True)
        if ours is not None and direct is not None
    ]
    own, direct = [ours for ours, _ in pairs], [direct for _, direct in pairs]
    added = [ours - direct for ours, direct in pairs]
    return LatencyRow(
        target=name,
        repeat=repeat,
        rounds=len(pairs),
        failures=sum(time_us is None for time_us in times_us),
        p50_us=_percentile(own, 0.5),
        p99_us=_percentile(own, 0.99),
        direct_p50_us=_percentile(direct, 0.5),
        direct_p99_us=_percentile(direct, 0.99),
        added_p50_us=_percentile(added, 0.5),
        added_p99_us=_percentile(added, 0.99),
        foreign_cores=foreign_cores,
    )


# --- memory ----------------------------------------------------------------------------------------------


def measure_memory(context: LaneContext, load: CostLoad) -> tuple[list[MemoryRow], list[Missing]]:
    """Resident memory before and after a load of plain and streamed requests. Raises `ServerFailed`."""
    rows: list[MemoryRow] = []
    with _fleet(context, FleetPlan(targets=load.targets, chunks=load.chunks, pace_ms=load.pace_ms)) as fleet:
        time.sleep(_SETTLE_S)
        for target in list(fleet.targets):
            context.on_step(f"{target.name}, memory")
            try:
                rows.append(_memory_row(target, load))
            except ServerFailed as error:
                _drop(fleet, target, error)
    return rows, fleet.missing


def _memory_row(target: GatewayTarget, load: CostLoad) -> MemoryRow:
    foreign = ForeignCpu(os.getpid())
    idle = _resident_mb(target)
    requests = failures = 0
    for kind in KINDS:
        count = _size_repeat(target, kind, load)
        records = read_answers(run_blocking(_cost_plan(target, kind, load, count)))
        requests += len(records)
        failures += sum(record.failure is not None for record in records)
    loaded = _resident_mb(target)
    return MemoryRow(
        target=target.name,
        idle_process_mb=idle[0],
        loaded_process_mb=loaded[0],
        idle_tree_mb=idle[1],
        loaded_tree_mb=loaded[1],
        requests=requests,
        failures=failures,
        foreign_cores=foreign.cores(),
    )


def _resident_mb(target: GatewayTarget) -> tuple[float, float]:
    return target.server.largest_resident_bytes() / 1e6, target.server.resident_bytes() / 1e6


# --- many streams ----------------------------------------------------------------------------------------


def measure_streams(context: LaneContext, load: StreamsLoad) -> tuple[list[StreamsRow], list[Missing]]:
    """Many concurrent streams. Raises `ServerFailed`."""
    rows: list[StreamsRow] = []
    plan = FleetPlan(targets=load.targets, chunks=load.chunks, pace_ms=1000 / load.chunks_per_s, stamps=True)
    with _fleet(context, plan) as fleet:
        for repeat in range(load.repeats):
            for target in in_turn(fleet.targets, repeat):
                context.on_step(f"{target.name}, {load.streams} streams, repeat {repeat + 1}")
                rows.append(_streams_row(target, load, repeat))
    return rows, fleet.missing


def _streams_row(target: GatewayTarget, load: StreamsLoad, repeat: int) -> StreamsRow:
    plan = _streams_plan(target, load, seed=repeat)
    foreign = ForeignCpu(os.getpid())
    server_before, client_before = target.server.cpu_s(), time.process_time()
    exchanges = run_blocking(plan)
    client_cpu_s = time.process_time() - client_before
    server_cpu_s = target.server.cpu_s() - server_before
    foreign_cores = foreign.cores()
    streams = [read_stream(exchange) for exchange in exchanges]
    wall_s = max(1e-9, span_s(exchanges))
    measured = while_all_ran(streams) if len(streams) == load.streams else []
    delays, sent_delays = due_delays_ms(measured), sent_delays_ms(measured)
    return StreamsRow(
        target=target.name,
        repeat=repeat,
        streams=load.streams,
        chunks_per_s=load.chunks_per_s,
        failures=sum(bool(stream.failure) for stream in streams),
        first_failure=_first_failure(streams),
        chunks=len(measured),
        delay_p50_ms=_percentile(delays, 0.5),
        delay_p99_ms=_percentile(delays, 0.99),
        delay_max_ms=max(delays, default=0.0),
        sent_delay_p99_ms=_percentile(sent_delays, 0.99),
        server_cpu_us_per_chunk=server_cpu_s * 1e6 / max(1, sum(len(stream.chunks) for stream in streams)),
        server_cores=server_cpu_s / wall_s,
        client_cores=client_cpu_s / wall_s,
        server_resident_mb=target.server.resident_bytes() / 1e6,
        foreign_cores=foreign_cores,
    )


def _streams_plan(target: GatewayTarget, load: StreamsLoad, seed: int) -> LoadPlan:
    address = Target.parse(target.server.url)
    asking = Asking(model="null", api_key=target.api_key, include_usage=False)
    offsets = arrivals.poisson(load.streams / max(1e-3, load.ramp_s), load.streams, seed)
    return LoadPlan(
        target=address,
        requests=chat_requests(address, _SHAPE, asking, load.streams, seed),
        loop=OpenLoop(offsets),
        hard_stop_s=3 * (load.ramp_s + load.window_s) + 30,
    )


def _first_failure(streams: Sequence[StampedStream]) -> str:
    return next((stream.failure[:300] for stream in streams if stream.failure), "")


def _percentile(values: Sequence[float], share: float) -> float:
    """Nearest-rank; 0 of nothing."""
    return percentile_of(values, share) if values else 0.0
