"""The command `sluice-bench client-cost`: what the load client itself costs, and how exact it is."""

from __future__ import annotations

import datetime
import signal
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from sluice_bench.client_cost import QUICK_LOADS, ClientCost, ClientLoads, measure_client, number_of_steps
from sluice_bench.client_report import figures, render_client
from sluice_bench.figure import terminal_table
from sluice_bench.peer_packages import DEFAULT_FOLDER
from sluice_bench.processes import ServerFailed
from sluice_bench.terminal import command_line, console, fail, steps, write_json

Output = Annotated[Path, typer.Option(help="The Markdown page; raw rows go beside it as .json.")]
Quick = Annotated[
    bool, typer.Option("--quick", help="Tiny counts, to see that it works; the figures mean nothing.")
]
Repeats = Annotated[int | None, typer.Option(min=1, help="Repeats of every measurement.")]
PeersDir = Annotated[
    Path, typer.Option(help="Where aiohttp gets a virtual environment for the comparison, made once.")
]


def client_cost_command(
    output: Output = Path("docs/reports/client.md"),
    quick: Quick = False,
    repeats: Repeats = None,
    peers_dir: PeersDir = DEFAULT_FOLDER,
) -> None:
    """Measure the load client: CPU per event beside a common client, schedule error, streams on one core.

    Takes about five minutes and wants the machine, at best two cores, for itself.
    """
    loads = QUICK_LOADS if quick else ClientLoads()
    loads = msgspec.structs.replace(loads, repeats=repeats or loads.repeats)
    cost = _measured(loads, peers_dir, quick)
    raw = output.with_suffix(".json")
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(render_client(cost, raw.name), encoding="utf-8")
    write_json(raw, cost)
    console.print(terminal_table(figures(cost)))
    console.print(f"Wrote {output} and {raw}.")


def _measured(loads: ClientLoads, peers_dir: Path, quick: bool) -> ClientCost:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are ended then, too
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes")
    with (
        tempfile.TemporaryDirectory(prefix="sluice-bench-") as name,
        steps(number_of_steps(loads)) as on_step,
    ):
        try:
            return measure_client(loads, Path(name), peers_dir, (command_line(), now, quick), on_step)
        except ServerFailed as error:
            fail(str(error))
