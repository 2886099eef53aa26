"""The command `sluice-bench scrape-cost`."""

from __future__ import annotations

import datetime
import signal
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from sluice_bench.environment import describe
from sluice_bench.processes import ServerFailed, raise_file_limit
from sluice_bench.scrape_cost import QUICK_SCRAPE, ScrapeLoad, measure_scrape_cost, number_of_steps
from sluice_bench.scrape_cost_report import ScrapeReport, render
from sluice_bench.terminal import command_line, console, fail, steps, write_json


def scrape_cost_command(
    quick: Annotated[
        bool, typer.Option("--quick", help="Tiny counts, to see that it works; the figures mean nothing.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            help="The Markdown page, raw rows beside it as .json; by default docs/reports/scrape-cost.md, and"
            " with --quick the page is just printed."
        ),
    ] = None,
) -> None:
    """Measure what it costs a gateway to watch 100 engines, and what parsing their metrics costs.

    Starts and ends every server itself. Wants the machine for itself, for three minutes.
    """
    load = QUICK_SCRAPE if quick else ScrapeLoad()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are ended then, too
    raise_file_limit()
    environment = describe()
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes")
    with (
        tempfile.TemporaryDirectory(prefix="sluice-bench-") as name,
        steps(number_of_steps(load)) as on_step,
    ):
        try:
            cost = measure_scrape_cost(load, Path(name), on_step)
        except ServerFailed as error:
            fail(str(error))
    report = ScrapeReport(command=command_line(), measured_at=now, environment=environment, cost=cost)
    if quick and output is None:
        console.print(render(report), markup=False, soft_wrap=True)
        return
    page = output or Path("docs/reports/scrape-cost.md")
    write_json(page.with_suffix(".json"), report)
    page.write_text(render(report), encoding="utf-8")
    console.print(f"Wrote {page} and {page.with_suffix('.json')}.")
