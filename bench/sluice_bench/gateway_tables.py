"""The tables of the gateway bench: every lane's targets side by side, with how each was measured.

Disturbed and client-bound results are named as such, and so is each target that could not be measured.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from sluice_bench.formatting import number, spread
from sluice_bench.gateway_bench import GatewayBench, LaneResult
from sluice_bench.gateway_figures import (
    BOUND_SHARE,
    SATURATED_CORES,
    added_delays_ms,
    client_bound,
    per_core,
    rows_of,
    saturated,
)
from sluice_bench.gateway_overhead import Kind, OverheadRow
from sluice_bench.gateway_rows import CostLoad, MemoryRow, StreamsLoad
from sluice_bench.gateway_targets import DIRECT, LABELS, SLUICE


def lane_sections(bench: GatewayBench) -> list[str]:
    """One for each lane that was measured, else empty."""
    plan = bench.plan
    return [
        _cost_section(bench.plain, plan.plain, "Plain requests", "plain", "request"),
        _cost_section(bench.stream, plan.stream, "Streams", "stream", "event"),
        _throughput_section(bench),
        _latency_section(bench),
        _large_section(bench),
        _memory_section(bench.memory),
        *(_streams_section(bench, load) for load in plan.streams),
    ]


def _names(lane: LaneResult[Any]) -> list[str]:
    present = {row.target for row in lane.rows}
    return [name for name in LABELS if name in present]


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = "|---|" + "--:|" * (len(head) - 1)
    return "\n".join(
        ["| " + " | ".join(head) + " |", rule, *("| " + " | ".join(line) + " |" for line in lines)]
    )


def _missing(lane: LaneResult[Any], width: int) -> list[list[str]]:
    """A row with the reason for each target that is not there."""
    blanks = [""] * (width - 2)
    return [[LABELS[gone.target], f"not measured: {cell(gone.reason)}", *blanks] for gone in lane.missing]


def cell(text: str) -> str:
    """Text that a table's cell can hold."""
    return " ".join(text.replace("|", "/").split())


def _cost_section(
    lane: LaneResult[OverheadRow] | None, load: CostLoad, title: str, kind: Kind, unit: str
) -> str:
    if lane is None:
        return ""
    what = (
        f"{load.chunks} chunks {load.pace_ms:g} ms apart, so that each travels alone; an event is a chunk, "
        "role, finish or `[DONE]`, and a stream's fixed cost is spread over its events"
        if kind == "stream"
        else "answers of 1.4 KB"
    )
    head = [
        "target",
        f"CPU µs / {unit}",
        "÷ Sluice",
        f"client CPU µs / {unit}",
        f"{unit}s per read",
        "RSS MB",
        "failed",
    ]
    ours = _median_cost(rows_of(lane, SLUICE))
    lines = [_cost_line(rows_of(lane, name), name, ours) for name in _names(lane)]
    return (
        f"## {title}: CPU per {unit}\n\n{load.connections} connections in a closed loop, {load.repeats} "
        f"repeats of about {load.seconds:g} s, targets in turn; {what}. CPU is user + system of the server's "
        "whole process "
        f"tree, nothing subtracted. {_when(lane)}\n\n" + _table(head, [*lines, *_missing(lane, len(head))])
    )


def _cost_line(rows: Sequence[OverheadRow], name: str, ours: float) -> list[str]:
    cost = _median_cost(rows)
    return [
        LABELS[name],
        spread([row.server_cpu_us_per_unit for row in rows]),
        f"{cost / ours:.2f}" if ours else "–",
        spread([row.client_cpu_us_per_unit for row in rows]),
        f"{statistics.median(row.units / max(1, row.reads) for row in rows):.2f}",
        f"{max(row.server_resident_mib for row in rows) * 1.048576:.0f}",
        str(sum(row.failures for row in rows)),
    ]


def _median_cost(rows: Sequence[OverheadRow]) -> float:
    return statistics.median(row.server_cpu_us_per_unit for row in rows) if rows else 0.0


def _throughput_section(bench: GatewayBench) -> str:
    lane, load = bench.throughput, bench.plan.throughput
    if lane is None:
        return ""
    where = (
        "The gateway and all its threads have one core, client and null server share the other"
        if bench.pinned
        else "Processes cannot be pinned here, so only the figures per second of CPU are those of one core"
    )
    parts = [
        f"## Throughput of one core\n\n{load.connections} connections in a closed loop, {load.repeats} "
        f"repeats of about {load.seconds:g} s. {where}. `direct` is the ceiling of client and null server; "
        f"for streams, whose chunks come {load.pace_ms:g} ms apart, it is their pace. Where a gateway used "
        f"less than {SATURATED_CORES:.0%} of its core, something else was the bottleneck, and its figure per "
        "core is per second of its CPU time. That is low for a gateway that works off much at a time once it "
        "is busy. Events per read well above 1: the gateway joined them. " + _when(lane)
    ]
    units: dict[Kind, str] = {"plain": "requests", "stream": "events"}
    for kind, unit in units.items():
        names = [name for name in _names(lane) if rows_of(lane, name, kind)]
        head = [
            "target",
            f"{unit}/s per core",
            "basis",
            f"{unit}/s by the clock",
            "cores used",
            f"{unit} per read",
            "failed",
        ]
        lines = [_throughput_line(bench, name, kind) for name in names]
        parts.append(f"### {unit.capitalize()}\n\n" + _table(head, [*lines, *_missing(lane, len(head))]))
    return "\n\n".join(parts)


def _throughput_line(bench: GatewayBench, name: str, kind: Kind) -> list[str]:
    rows = rows_of(bench.throughput, name, kind)
    by_clock = bench.pinned and saturated(rows)
    basis = "clock" if by_clock else "CPU time"
    if name == DIRECT:
        basis = "ceiling"
    elif client_bound(rows, rows_of(bench.throughput, DIRECT, kind)):
        bound = "kept the pace" if kind == "stream" else f"client-bound (≥ {BOUND_SHARE:.0%} of the ceiling)"
        basis += f", {bound}"
    return [
        LABELS[name],
        spread(per_core(rows, by_clock)),
        basis,
        spread([row.units_per_s for row in rows]),
        f"{statistics.median(row.server_cores for row in rows):.2f}",
        f"{statistics.median(row.units / max(1, row.reads) for row in rows):.2f}",
        str(sum(row.failures for row in rows)),
    ]


def _latency_section(bench: GatewayBench) -> str:
    lane = bench.latency
    if lane is None:
        return ""
    head = [
        "target",
        "added p50 µs",
        "added p99 µs",
        "p50 − direct p50",
        "p99 − direct p99",
        "p50 µs",
        "p99 µs",
        "failed",
    ]
    present = {row.target for row in lane.rows}
    lines = []
    for name in (name for name in LABELS if name in present):
        rows = rows_of(lane, name)
        added = ["–"] * 4
        if name != DIRECT:
            added = [
                spread([row.added_p50_us for row in rows]),
                spread([row.added_p99_us for row in rows]),
                spread([row.p50_us - row.direct_p50_us for row in rows]),
                spread([row.p99_us - row.direct_p99_us for row in rows]),
            ]
        own = [spread([row.p50_us for row in rows]), spread([row.p99_us for row in rows])]
        lines.append([LABELS[name], *added, *own, str(sum(row.failures for row in rows))])
    lines += [[LABELS[gone.target], f"not measured: {cell(gone.reason)}", *[""] * 6] for gone in lane.missing]
    load = bench.plan.latency
    groups = "; ".join(
        f"{', '.join(group)}: {rounds:,}" for group, rounds in zip(load.groups, load.rounds, strict=True)
    )
    return (
        "## Added latency at concurrency 1\n\nOne plain request at a time. In a round each server of a group "
        "is asked once, in random order; `added` is of the differences to the null server within each round, "
        f"so its p99 holds both requests' jitter. Rounds a repeat ({groups}), {load.repeats} repeats. "
        f"{_when(lane)}\n\n" + _table(head, lines)
    )


def _large_section(bench: GatewayBench) -> str:
    lane = bench.large
    if lane is None:
        return ""
    parts = [_cost_section(lane, bench.plan.large, "Prompts of 400 KB", "plain", "request")]
    if lane.blocks:
        head = [
            "repeat",
            "probes",
            "p50 ms",
            "p99 ms",
            "slowest ms",
            "idle server p99",
            "its slowest",
            "own histogram ≤ ms",
        ]
        lines = [
            [
                str(row.repeat + 1),
                f"{row.probes:,}",
                *(number(value) for value in (row.probe_p50_ms, row.probe_p99_ms, row.probe_max_ms)),
                *(number(value) for value in (row.own_p99_ms, row.own_max_ms)),
                "–" if row.lag_histogram_ms is None else f"{row.lag_histogram_ms:g}",
            ]
            for row in lane.blocks
        ]
        parts.append(
            "### The event loop meanwhile\n\nOne such request at a time on Sluice, which has a core of its "
            "own, with `GET /health` 1 ms after each answer to the last: the slowest answer bounds the "
            "longest block. An idle server asked in the same way shows what of that is client and machine. "
            "Sluice's own histogram of loop lag samples "
            "twice a second.\n\n" + _table(head, lines)
        )
    return "\n\n".join(parts)


def _memory_section(lane: LaneResult[MemoryRow] | None) -> str:
    if lane is None:
        return ""
    head = [
        "target",
        "idle",
        "after load",
        "idle, whole tree",
        "after load, whole tree",
        "requests",
        "failed",
    ]
    lines = [
        [
            LABELS[row.target],
            *(
                f"{value:.0f}"
                for value in (
                    row.idle_process_mb,
                    row.loaded_process_mb,
                    row.idle_tree_mb,
                    row.loaded_tree_mb,
                )
            ),
            f"{row.requests:,}",
            str(row.failures),
        ]
        for name in _names(lane)
        for row in rows_of(lane, name)
    ]
    return (
        "## Resident memory\n\nMB of the largest process, and of all of the tree (shared pages counted once "
        f"per process): idle, and after plain and streamed requests. {_when(lane)}\n\n"
        + _table(head, [*lines, *_missing(lane, len(head))])
    )


def _streams_section(bench: GatewayBench, load: StreamsLoad) -> str:
    lane = bench.streams
    if lane is None:
        return ""
    head = [
        "target", "delay p50 ms", "delay p99 ms", "added p99 ms", "p99 after sending", "slowest ms", "CPU µs "
        "/ chunk",
        "cores", "client cores", "RSS MB", "failed",
    ]  # fmt: skip
    lines, failures = [], []
    for name in LABELS:
        rows = [row for row in rows_of(lane, name) if row.streams == load.streams]
        if not rows:
            continue
        direct = [row for row in rows_of(lane, DIRECT) if row.streams == load.streams]
        lines.append(
            [
                LABELS[name],
                spread([row.delay_p50_ms for row in rows if row.chunks]),
                spread([row.delay_p99_ms for row in rows if row.chunks]),
                "–" if name == DIRECT else spread(added_delays_ms(rows, direct)),
                spread([row.sent_delay_p99_ms for row in rows if row.chunks]),
                number(max(row.delay_max_ms for row in rows)),
                spread([row.server_cpu_us_per_chunk for row in rows]),
                f"{statistics.median(row.server_cores for row in rows):.2f}",
                f"{statistics.median(row.client_cores for row in rows):.2f}",
                f"{max(row.server_resident_mb for row in rows):.0f}",
                str(sum(row.failures for row in rows)),
            ]
        )
        failures += [
            f"First failure on {name}: `{cell(row.first_failure)}`." for row in rows if row.failures
        ][:1]
    failures += [f"{gone.target}: not measured: {cell(gone.reason)}." for gone in lane.missing]
    return "\n\n".join(
        [
            f"## {load.streams:,} concurrent streams at {load.chunks_per_s:g} chunks/s each\n\nStreams begin "
            f"at random times within {load.ramp_s:g} s; only chunks that were due while all were running "
            "count. A delay is a chunk's arrival after its due time on the null server's schedule. Client, "
            f"gateway and null server share all cores. {load.repeats} repeats. {_when(lane)}",
            _table(head, lines),
            *failures,
        ]
    )


def _when(lane: LaneResult[Any]) -> str:
    return f"Measured {lane.measured_at} at commit `{lane.commit}` in {lane.seconds:.0f} s."
