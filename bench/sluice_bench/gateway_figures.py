"""The gateway's figures against their bars: from rows to one line each. Pure.

A figure is the median over the repeats unless it says otherwise. `met` is judged on that value, whatever the
spread; a figure more than half of whose repeats were disturbed by other programs says so.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

from sluice_bench.figure import Figure, disturbed
from sluice_bench.gateway_bench import GatewayBench, LaneResult
from sluice_bench.gateway_overhead import Kind, OverheadRow
from sluice_bench.gateway_rows import StreamsRow
from sluice_bench.gateway_targets import DIRECT, LITELLM_PROXY, SGLANG, SLUICE, VLLM

SATURATED_CORES = 0.9
"""From this much of its one core a gateway is the bottleneck: its throughput can be read off the clock."""

BOUND_SHARE = 0.9
"""From this share of the ceiling of client and null server a throughput is theirs, not the gateway's."""

Row = TypeVar("Row")


def figures(bench: GatewayBench) -> list[Figure]:
    """All of them, measured or not, in the order of the page."""
    return [
        _cost(bench.plain, "CPU per plain request, one process", "µs", 120, 90),
        _cost(bench.stream, "CPU per SSE event relayed alone", "µs", 22, 15),
        _ratio(bench, "plain", LITELLM_PROXY, "requests/s per core ÷ LiteLLM proxy, one worker", 40, 80),
        _ratio(bench, "stream", LITELLM_PROXY, "relayed SSE events/s per core ÷ LiteLLM proxy", 30, 60),
        _ratio(bench, "plain", SGLANG, "requests/s per core ÷ sglang-router", 0.5, 0.7),
        _ratio(bench, "plain", VLLM, "requests/s per core ÷ vllm-router", 0.5, 0.7),
        _latency(bench, "p50", 250, 150),
        _latency(bench, "p99", 500, 300),
        _cost(bench.large, "CPU per request with a 400 KB prompt", "µs", 400, None),
        _block(bench),
        _memory(bench),
        *_streams(bench, 0, on_bar=True),
        *_streams(bench, 1, on_bar=False),
    ]


def rows_of(lane: LaneResult[Row] | None, target: str, kind: Kind | None = None) -> list[Row]:
    """The lane's rows on one target (and of one kind)."""
    if lane is None:
        return []
    rows = [row for row in lane.rows if getattr(row, "target", None) == target]
    return [row for row in rows if kind is None or getattr(row, "kind", None) == kind]


def per_core(rows: Sequence[OverheadRow], by_clock: bool) -> list[float]:
    """Throughput per core of each repeat: by the clock of a saturated core, or by the server's CPU time."""
    return [row.units_per_s if by_clock else row.units_per_cpu_s for row in rows]


def saturated(rows: Sequence[OverheadRow]) -> bool:
    """Whether the server kept its core busy."""
    return bool(rows) and statistics.median(row.server_cores for row in rows) >= SATURATED_CORES


def client_bound(rows: Sequence[OverheadRow], direct: Sequence[OverheadRow]) -> bool:
    """Whether the throughput is within a tenth of what client and null server manage alone."""
    if not rows or not direct:
        return False
    ceiling = statistics.median(row.units_per_s for row in direct)
    return statistics.median(row.units_per_s for row in rows) >= BOUND_SHARE * ceiling


def added_delays_ms(ours: Sequence[StreamsRow], direct: Sequence[StreamsRow]) -> list[float]:
    """Per repeat: p99 of the chunks' delays through the gateway less that of the null server itself."""
    by_repeat = {row.repeat: row for row in direct if row.chunks}
    return [
        row.delay_p99_ms - by_repeat[row.repeat].delay_p99_ms
        for row in ours
        if row.chunks and row.repeat in by_repeat
    ]


def _of(values: Sequence[float], of: Callable[[Sequence[float]], float] = statistics.median) -> float | None:
    return of(values) if values else None


def _spread(values: Sequence[float]) -> tuple[float, float] | None:
    return (min(values), max(values)) if values else None


def _cost(
    lane: LaneResult[OverheadRow] | None, name: str, unit: str, bar: float | None, aim: float | None
) -> Figure:
    rows = rows_of(lane, SLUICE)
    values = [row.server_cpu_us_per_unit for row in rows]
    joined = _of([row.units / max(1, row.reads) for row in rows if row.kind == "stream"])
    return Figure(
        name=name,
        unit=unit,
        bar=bar,
        aim=aim,
        value=_of(values),
        spread=_spread(values),
        note="" if joined is None else f"{joined:.2f} events per read",
        disturbed=disturbed(row.foreign_cores for row in rows),
    )


def _ratio(bench: GatewayBench, kind: Kind, peer: str, name: str, bar: float, aim: float) -> Figure:
    """By the clock only when both were saturated: one basis for both."""
    ours, theirs = rows_of(bench.throughput, SLUICE, kind), rows_of(bench.throughput, peer, kind)
    by_clock = bench.pinned and saturated(ours) and saturated(theirs)
    values = [
        own / other
        for own, other in zip(per_core(ours, by_clock), per_core(theirs, by_clock), strict=False)
        if other
    ]
    return Figure(
        name=name,
        unit="×",
        bar=bar,
        aim=aim,
        value=_of(values),
        spread=_spread(values),
        higher_is_better=True,
        note="by the clock" if by_clock else "per second of server CPU",
        disturbed=disturbed(row.foreign_cores for row in [*ours, *theirs]),
    )


def _latency(bench: GatewayBench, which: Literal["p50", "p99"], bar: float, aim: float) -> Figure:
    rows = rows_of(bench.latency, SLUICE)
    values = [row.added_p50_us if which == "p50" else row.added_p99_us for row in rows]
    return Figure(
        name=f"added latency at concurrency 1, {which}",
        unit="µs",
        bar=bar,
        aim=aim,
        value=_of(values),
        spread=_spread(values),
        disturbed=disturbed(row.foreign_cores for row in rows),
    )


def _block(bench: GatewayBench) -> Figure:
    """The longest of all repeats: the bar says never."""
    rows = bench.large.blocks if bench.large else []
    values = [row.probe_max_ms for row in rows]
    own = max((row.own_max_ms for row in rows), default=0.0)
    return Figure(
        name="slowest probe of the event loop meanwhile",
        unit="ms",
        bar=5,
        aim=None,
        value=_of(values, max),
        spread=_spread(values),
        note=f"an idle server's slowest: {own:.1f} ms" if rows else "",
        disturbed=disturbed(row.foreign_cores for row in rows),
    )


def _memory(bench: GatewayBench) -> Figure:
    rows = rows_of(bench.memory, SLUICE)
    return Figure(
        name="RSS per process, after load",
        unit="MB",
        bar=70,
        aim=50,
        value=_of([row.loaded_process_mb for row in rows]),
        note=f"idle {rows[0].idle_process_mb:.0f} MB" if rows else "",
        disturbed=disturbed(row.foreign_cores for row in rows),
    )


def _streams(bench: GatewayBench, index: int, on_bar: bool) -> list[Figure]:
    """Failed streams of all repeats, and the added delay."""
    load = bench.plan.streams[index]
    title = f"{load.streams:,} streams at {load.chunks_per_s:g} chunks/s each"
    ours = [row for row in rows_of(bench.streams, SLUICE) if row.streams == load.streams]
    direct = [row for row in rows_of(bench.streams, DIRECT) if row.streams == load.streams]
    added = added_delays_ms(ours, direct)
    bad = disturbed(row.foreign_cores for row in [*ours, *direct])
    return [
        Figure(
            name=f"{title}: failed streams",
            unit="",
            bar=0 if on_bar else None,
            aim=None if on_bar else 0,
            value=float(sum(row.failures for row in ours)) if ours else None,
            disturbed=bad,
        ),
        Figure(
            name=f"{title}: added per-chunk p99",
            unit="ms",
            bar=5 if on_bar else None,
            aim=None if on_bar else 5,
            value=_of(added),
            spread=_spread(added),
            disturbed=bad,
        ),
    ]
