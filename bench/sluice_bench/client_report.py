"""The page of the client's own cost: figures against their bars, a table a lane, how far to trust it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from sluice_bench.client_cost import EVENTS_PER_S, ClientCost, ClientRow
from sluice_bench.figure import Figure, disturbed, figures_section
from sluice_bench.formatting import DISTURBED_CORES, number, spread
from sluice_bench.gateway_report import machine

BAR_EVENT_US = 8.0
BAR_LAG_MS = 1.0
BAR_STREAMS = 2000.0

_BUSY_SERVER_CORES = 0.9


def render_client(cost: ClientCost, raw_name: str) -> str:
    """The Markdown page; `raw_name` is the file with the raw rows beside it."""
    parts = [_opening(cost, raw_name), figures_section(figures(cost)), _event_table(cost)]
    parts += [_schedule_table(cost), _streams_table(cost), _trust(cost)]
    return "\n\n".join(parts) + "\n"


def figures(cost: ClientCost) -> list[Figure]:
    """Medians over repeats, against their bars."""
    ours, other = _rows(cost, "event", "sluice"), _rows(cost, "event", "aiohttp")
    schedule, streams = _rows(cost, "schedule"), _rows(cost, "streams")
    rate, count = cost.loads.schedule_per_s, cost.loads.streams
    return [
        _figure("CPU per SSE event while the load runs", "µs", ours, _hot, bar=BAR_EVENT_US),
        _figure("the same, parsing afterwards", "µs", ours, lambda row: row.parse_us_per_event),
        _figure("the same of aiohttp with JSON read at once, all in all", "µs", other, _hot),
        _figure(
            f"schedule error p99 at {rate:g} requests/s",
            "ms",
            schedule,
            lambda row: row.result.lag_p99_ms,
            bar=BAR_LAG_MS,
        ),
        _figure(
            f"streams at {EVENTS_PER_S:g} tokens/s that one core carries",
            "",
            streams,
            _streams_per_core,
            bar=BAR_STREAMS,
            higher_is_better=True,
            note=f"from the CPU of {count}",
        ),
        _figure(
            f"event taken in late, p99, with {count} streams on one core",
            "ms",
            streams,
            lambda row: row.result.late_p99_ms,
        ),
    ]


def _rows(cost: ClientCost, lane: str, client: str = "sluice") -> list[ClientRow]:
    return [row for row in cost.rows if (row.lane, row.client) == (lane, client)]


def _hot(row: ClientRow) -> float:
    return row.hot_us_per_event


def _streams_per_core(row: ClientRow) -> float | None:
    """By the CPU of the events that came, however many; unknown when streams failed."""
    events_per_core_s = row.result.events / max(1e-9, row.result.hot_cpu_s)
    return None if row.result.failures else round(events_per_core_s / EVENTS_PER_S)


def _figure(
    name: str,
    unit: str,
    rows: Sequence[ClientRow],
    value_of: Callable[[ClientRow], float | None],
    *,
    bar: float | None = None,
    higher_is_better: bool = False,
    note: str = "",
) -> Figure:
    values = [value for row in rows if (value := value_of(row)) is not None]
    return Figure(
        name=name,
        unit=unit,
        bar=bar,
        aim=None,
        value=statistics.median(values) if values else None,
        spread=(min(values), max(values)) if values else None,
        higher_is_better=higher_is_better,
        note=note,
        disturbed=disturbed(row.foreign_cores for row in rows),
    )


def _opening(cost: ClientCost, raw_name: str) -> str:
    warning = (
        "\n\n**This was a `--quick` run: it shows that everything works. Its figures mean nothing.**"
        if cost.quick
        else ""
    )
    return (
        "# The load client: what it costs and how exact it is\n\n"
        f"Measured with\n\n```\n{cost.command}\n```\n\n"
        f"on {cost.measured_at}: {machine(cost.environment)}\n\n"
        f"Every measurement is a row in [{raw_name}]({raw_name}) and a process of its own, against the null "
        "server on another core of the machine. A figure is the median of its repeats, with the smallest and "
        f"the largest in brackets. How to read it: [bench.md](../bench.md#heavy-loads).{warning}"
    )


def _event_table(cost: ClientCost) -> str:
    loads = cost.loads
    lines = [
        "## CPU per event",
        "",
        f"{loads.event_streams} streams of {EVENTS_PER_S:g} events/s for {loads.event_s:g} s, in turn. User "
        "and system time of the client, connecting included. Ours only stamps and keeps what it reads while "
        "the load runs, and parses later; the other one is written in the style of `vllm bench serve`: "
        f"{cost.peer}, asyncio's own event loop, each event decoded, parsed and stamped when it comes.",
        "",
        "| client | while the load runs, µs | afterwards, µs | both, µs | share of a core |",
        "|---|--:|--:|--:|--:|",
    ]
    for client, name in (("sluice", "Sluice's"), ("aiohttp", "aiohttp, JSON at once")):
        rows = _rows(cost, "event", client)
        if not rows:
            lines.append(f"| {name} | not measured | | | |")
            continue
        later = spread([row.parse_us_per_event for row in rows]) if client == "sluice" else "–"
        both = spread([row.hot_us_per_event + row.parse_us_per_event for row in rows])
        hot, cores = spread([_hot(row) for row in rows]), spread([row.client_cores for row in rows])
        lines.append(f"| {name} | {hot} | {later} | {both} | {cores} |")
    return "\n".join(lines)


def _schedule_table(cost: ClientCost) -> str:
    loads = cost.loads
    lines = [
        "## Schedule",
        "",
        f"{loads.schedule_per_s:g} short streams a second for {loads.schedule_s:g} s: how long after its "
        "scheduled time each request was dispatched.",
        "",
        "| repeat | p50, ms | p99, ms | share of a core | failures |",
        "|--:|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {row.repeat + 1} | {_ms(row.result.lag_p50_ms)} | {_ms(row.result.lag_p99_ms)} | "
        f"{row.client_cores:.2f} | {row.result.failures} |"
        for row in _rows(cost, "schedule")
    ]
    return "\n".join(lines)


def _streams_table(cost: ClientCost) -> str:
    loads = cost.loads
    lines = [
        "## Streams",
        "",
        f"{loads.streams} streams of {EVENTS_PER_S:g} events/s each, all by one process on one core: how "
        "long after the null server sent it each event was stamped, of those that were due while all ran.",
        "",
        "| repeat | events/s | late p50, ms | late p99, ms | client's core | null server's core | failures |",
        "|--:|--:|--:|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {row.repeat + 1} | {number(row.result.events / row.result.wall_s)} | "
        f"{_ms(row.result.late_p50_ms)} | {_ms(row.result.late_p99_ms)} | {row.client_cores:.2f} | "
        f"{row.server_cores:.2f} | {row.result.failures} |"
        for row in _rows(cost, "streams")
    ]
    return "\n".join(lines)


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _trust(cost: ClientCost) -> str:
    foreign = [row.foreign_cores for row in cost.rows]
    bad = sum(cores > DISTURBED_CORES for cores in foreign)
    lines = [
        "## How far to trust these figures",
        "",
        f"- CPU of others during the measurements: median {statistics.median(foreign):.2f} cores, at most "
        f"{max(foreign):.2f}; {bad} of {len(foreign)} had more than {DISTURBED_CORES:g} and count as "
        "disturbed. CPU time suffers a little from that, latenesses a lot.",
        "- An event costs less when many come at once, because one wake-up of the event loop takes in all of "
        "them: the cost at a low rate is not the cost at a high one.",
    ]
    busy = [row for row in _rows(cost, "streams") if row.server_cores > _BUSY_SERVER_CORES]
    if busy:
        lines.append(
            f"- The null server was at its own limit in {len(busy)} repeats of the streams, and sent fewer "
            "events than planned; lateness counts from its sending, so it is not in there."
        )
    return "\n".join(lines)
