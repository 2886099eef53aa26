"""The command `sluice-bench experiment`: reads its options, shows progress, prints or writes the report."""

from __future__ import annotations

import datetime
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from sluice_bench.experiments.catalog import PLANS
from sluice_bench.experiments.measurement import Experiment, carry_out
from sluice_bench.experiments.page import render
from sluice_bench.experiments.plan import BUNDLED_FOLDER, ExperimentName, ExperimentOptions, Plan
from sluice_bench.experiments.plots import drawn, plots
from sluice_bench.experiments.requirement import RequirementMissing
from sluice_bench.experiments.results_folder import RESULTS
from sluice_bench.model_files import MODELS_FOLDER
from sluice_bench.peer_packages import DEFAULT_FOLDER
from sluice_bench.processes import ServerFailed
from sluice_bench.terminal import command_line, console, fail, steps, write_json

REPORTS = Path("docs/reports")

Name = Annotated[ExperimentName, typer.Argument(help="What to find out.")]
Model = Annotated[
    str | None,
    typer.Option(
        help="A model folder, `sluice-tiny`, or a random model in the shape of `smollm-135m` or "
        "`tinyllama-1.1b`; each experiment has its own default."
    ),
]
Quick = Annotated[bool, typer.Option("--quick", help="A few requests, once; the figures mean nothing.")]
Repeats = Annotated[int | None, typer.Option(min=1, help="Of everything; 3 unless said otherwise.")]
Only = Annotated[list[str] | None, typer.Option(help="Just this variant; may be repeated.")]
Output = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the report, its raw rows and its plots. [default: docs/reports; with --quick or "
        "--only the report is just printed]"
    ),
]
Results = Annotated[
    Path, typer.Option(help="Folder of the run files, `variant/timestamp.parquet`; `verify` checks them.")
]
Build = Annotated[
    bool, typer.Option("--build", help="Build other engines that are not there; takes minutes.")
]
ModelsDir = Annotated[Path, typer.Option(help="Where random models are made, once.")]
PeersDir = Annotated[Path, typer.Option(help="Where other engines are installed or built, once.")]
BundledModel = Annotated[
    Path, typer.Option(help="Folder of the bundled model.", show_default="worker-core/models/sluice-tiny")
]


def experiment_command(
    name: Name,
    model: Model = None,
    quick: Quick = False,
    repeats: Repeats = None,
    only: Only = None,
    output: Output = None,
    results: Results = RESULTS,
    build: Build = False,
    models_dir: ModelsDir = MODELS_FOLDER,
    peers_dir: PeersDir = DEFAULT_FOLDER,
    bundled_model: BundledModel = BUNDLED_FOLDER,
) -> None:
    """Find out what a technique or an engine buys: the same requests to each variant, through the gateway.

    Starts gateway and engines itself, measures, ends them, and writes a report. Wants the machine for itself;
    how far it was disturbed is in the report. Ends with status 2 and what it needs when something is missing,
    1 when a request failed.
    """
    options = ExperimentOptions(
        quick=quick,
        model=model,
        repeats=repeats,
        only=tuple(only or ()),
        build=build,
        bundled_model=bundled_model,
        models_folder=models_dir,
        peers_folder=peers_dir,
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are ended then, too
    measured = _measured(_plan(name, options), results)
    if output is None and (quick or only):
        console.print(render(measured, f"{name}.json"), markup=False, soft_wrap=True, highlight=False)
    else:
        _write(measured, output or REPORTS)
    if failed := sum(row.failures for row in measured.rows):
        fail(f"{failed} requests failed.")


def _plan(name: ExperimentName, options: ExperimentOptions) -> Plan:
    try:
        return PLANS[name](options)
    except RequirementMissing as error:
        fail(str(error), status=2)
    except ServerFailed as error:
        fail(str(error))
    except ValueError as error:
        fail(f"{error}.")


def _measured(plan: Plan, results: Path) -> Experiment:
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes")
    with steps(plan.steps) as on_step:
        try:
            return carry_out(plan, command_line(), now, results, on_step)
        except ServerFailed as error:
            fail(str(error))


def _write(measured: Experiment, folder: Path) -> None:
    page, raw = folder / f"{measured.name}.md", folder / f"{measured.name}.json"
    write_json(raw, measured)
    pictures = plots(measured)
    for name, plot in pictures.items():
        (folder / name).write_text(drawn(plot), encoding="utf-8")
    shown = [(name, plot.title) for name, plot in pictures.items()]
    page.write_text(render(measured, raw.name, shown), encoding="utf-8")
    console.print(f"Wrote {page}, {raw.name} and {len(shown)} plots beside it.", soft_wrap=True)
