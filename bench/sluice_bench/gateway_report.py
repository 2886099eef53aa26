"""The page of the gateway bench: figures against their bars, the setting, the tables, how far to trust it."""

from __future__ import annotations

import statistics

from rich.table import Table

from sluice_bench.environment import Environment
from sluice_bench.figure import figures_section, terminal_table
from sluice_bench.formatting import DISTURBED_CORES
from sluice_bench.gateway_bench import LANES, GatewayBench
from sluice_bench.gateway_figures import figures
from sluice_bench.gateway_tables import cell, lane_sections


def render_gateway(bench: GatewayBench, raw_name: str) -> str:
    """The Markdown page; `raw_name` is the file with the raw rows beside it."""
    parts = [
        _opening(bench, raw_name),
        figures_section(figures(bench)),
        _setting(bench),
        *lane_sections(bench),
        _trust(bench),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _opening(bench: GatewayBench, raw_name: str) -> str:
    warning = (
        "\n\n**This was a `--quick` run: it shows that everything works. Its figures mean nothing.**"
        if bench.quick
        else ""
    )
    return (
        "# Gateway: what it costs and how fast it is\n\n"
        f"Measured with\n\n```\n{bench.command}\n```\n\n"
        f"Every repeat is a row in [{raw_name}]({raw_name}). A figure is the median of its repeats, with the "
        "smallest and the largest in brackets. How each is measured: [measuring.md](../measuring.md)."
        + warning
    )


def figures_table(bench: GatewayBench) -> Table:
    """The measured figures, for a terminal."""
    return terminal_table(figures(bench))


def _setting(bench: GatewayBench) -> str:
    return (
        f"## Setting\n\n{machine(bench.environment)}\n\n"
        "Everything runs on this machine and talks over loopback: the load client, the gateway under test, "
        "and the null server behind it, which answers at next to no cost. Sluice is one process with a key "
        "checked, limits reserved and settled, metrics counted and one log line per request. The peers run "
        "as cheaply as they can be set up: no key, no limits, no database, no log line per request, the "
        "simplest balancing."
    )


def machine(env: Environment) -> str:
    """The machine and the versions in a sentence."""
    packages = ", ".join(f"{name} {version}" for name, version in env.packages.items())
    return (
        f"{env.cpu}, {env.cores} cores, {env.memory_gib:.0f} GiB, {env.system}, Python {env.python}; "
        f"{packages}. Load average before the run: {env.load_average:.2f}."
    )


def _trust(bench: GatewayBench) -> str:
    lanes = [lane for name in LANES if (lane := getattr(bench, name)) is not None]
    foreign = [row.foreign_cores for lane in lanes for row in [*lane.rows, *lane.blocks]]
    lines = ["## How far to trust these figures", ""]
    lines += [
        f"- Lane `{name}` could not be measured: {cell(reason)}" for name, reason in bench.failed.items()
    ]
    if bench.foreign_before > DISTURBED_CORES:
        lines.append(
            f"- **The machine was not quiet: others kept {bench.foreign_before:.2f} cores busy before the "
            "first lane of this run.**"
        )
    if foreign:
        bad = sum(cores > DISTURBED_CORES for cores in foreign)
        lines.append(
            f"- CPU of others during the repeats: median {statistics.median(foreign):.2f} cores, at most "
            f"{max(foreign):.2f}; {bad} of {len(foreign)} repeats had more than {DISTURBED_CORES:g} and "
            "count as disturbed. CPU time suffers little from that (caches, clock), latency and throughput a "
            "lot."
        )
    lines += [
        "- CPU times come in steps of 10 ms. Ratios travel between machines, absolute figures do not.",
        "- The client is a Python process: where it or the null server was the bottleneck, the tables say "
        "so.",
    ]
    return "\n".join(lines)
