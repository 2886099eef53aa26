"""The page of `sluice-bench scrape-cost`: three figures with their bars, and every window."""

from __future__ import annotations

from statistics import median

import msgspec

from sluice_bench.environment import Environment
from sluice_bench.scrape_cost import ScrapeCost

_WATCHING_BAR_CORES = 0.15
_PARSE_BAR_US = 60.0
_PARSE_BAR_BYTES = 40_000


class ScrapeReport(msgspec.Struct, frozen=True, kw_only=True):
    """What is written beside the page, as JSON."""

    command: str
    measured_at: str
    environment: Environment
    cost: ScrapeCost


def figures(cost: ScrapeCost) -> list[tuple[str, str, str, bool]]:
    """(figure, bar, measured, met)."""
    watching, parse = cost.cores("load"), [us * _PARSE_BAR_BYTES / cost.page_bytes for us in cost.parse_us]
    load = cost.load
    return [
        (
            f"watching {load.replicas} replicas at {load.rate_hz:g} Hz, health probes included",
            f"≤ {_WATCHING_BAR_CORES:g} core",
            f"{_spread(watching, 3)} core",
            median(watching) <= _WATCHING_BAR_CORES,
        ),
        (
            f"parsing a page, per {_PARSE_BAR_BYTES // 1000} KB of it",
            f"≤ {_PARSE_BAR_US:g} µs",
            f"{_spread(parse, 1)} µs",
            median(parse) <= _PARSE_BAR_US,
        ),
    ]


def render(report: ScrapeReport) -> str:
    """Markdown."""
    cost = report.cost
    return "\n".join([*_head(report), *_figures(cost), *_parts(cost), *_windows(cost)]) + "\n"


def _head(report: ScrapeReport) -> list[str]:
    machine = report.environment
    return [
        "# Watching engines: what it costs",
        "",
        "Measured with",
        "",
        "```",
        report.command,
        "```",
        "",
        f"on {report.measured_at} at commit `{machine.commit}`: {machine.cpu}, {machine.cores} cores,"
        f" {machine.memory_gib:.0f} GiB, {machine.system}, Python {machine.python}. Every window is a row in"
        " [scrape-cost.json](scrape-cost.json); a figure is the median, with the smallest and the largest in"
        " brackets.",
        "",
    ]


def _figures(cost: ScrapeCost) -> list[str]:
    rows = (
        f"| {what} | {bar} | {said} | {'yes' if met else 'no'} |" for what, bar, said, met in figures(cost)
    )
    return ["| figure | bar | measured | met? |", "|---|--:|--:|---|", *rows, ""]


def _parts(cost: ScrapeCost) -> list[str]:
    load = cost.load
    served = "its request path compiled" if cost.compiled else "from its Python sources"
    return [
        f"A gateway of one process, {served}, with {load.replicas} idle engines of adapter `vllm` behind it"
        f" on this machine, whose metrics pages have {cost.page_bytes:,} bytes and change from look to look."
        f" Nobody asks it anything. CPU is user + system of its process tree over {load.window_s:g} s.",
        "",
        "| the gateway reads | core |",
        "|---|--:|",
        f"| health once a second, load {load.rate_hz:g} times a second | {_spread(cost.cores('load'), 3)} |",
        f"| health once a second only | {_spread(cost.cores('health'), 3)} |",
        "",
        f"The difference, over the pages that were read, is {_spread(cost.page_us(), 0)} µs a page: request,"
        f" answer, parsing, telling the router. Parsing alone, all fields of a load, is"
        f" {_spread(cost.parse_us, 1)} µs for this page; `prometheus_client`'s parser takes"
        f" {_spread(cost.prometheus_us, 0)} µs for it.",
        "",
    ]


def _windows(cost: ScrapeCost) -> list[str]:
    rows = (
        f"| {row.watching} | {row.repeat + 1} | {row.cores:.3f} | {row.pages / row.wall_s:.0f}"
        f" | {row.probes / row.wall_s:.0f} | {row.foreign_cores:.2f} |"
        for row in cost.rows
    )
    head = ["| setting | repeat | core | pages/s | probes/s | foreign cores |", "|---|--:|--:|--:|--:|--:|"]
    return [*head, *rows]


def _spread(values: list[float], digits: int) -> str:
    middle = f"{median(values):.{digits}f}"
    if len(values) < 2:
        return middle
    return f"{middle} ({min(values):.{digits}f}–{max(values):.{digits}f})"
