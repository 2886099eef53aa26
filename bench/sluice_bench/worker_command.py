"""The command `sluice-bench worker`: reads its options, shows progress, writes the report."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from sluice_bench.baseline import BUNDLED_MODEL
from sluice_bench.figure import terminal_table
from sluice_bench.model_files import MODELS_FOLDER
from sluice_bench.peer_packages import DEFAULT_FOLDER
from sluice_bench.processes import ServerFailed
from sluice_bench.terminal import command_line, console, fail, steps, write_json
from sluice_bench.worker_bench import (
    WorkerBench,
    WorkerSettings,
    number_of_steps,
    run_worker_bench,
)
from sluice_bench.worker_figures import worker_figures
from sluice_bench.worker_plan import LARGE, SMALL, Cell, Group, Lane, chosen, full_plan, quick_plan
from sluice_bench.worker_report import render_worker
from sluice_bench.worker_targets import ALL_CONTESTANTS, PEERS

Quick = Annotated[
    bool, typer.Option("--quick", help="A toy model, the worker alone; the figures mean nothing.")
]
Lanes = Annotated[
    list[Lane] | None, typer.Option(help="Measure just this lane, may be repeated; others are kept.")
]
ShapeNames = Annotated[
    list[str] | None, typer.Option(help=f"Just this model, may be repeated: {LARGE} or {SMALL}.")
]
Groups = Annotated[
    list[Group] | None,
    typer.Option(help="Just this group of contestants, may be repeated."),
]
StreamCounts = Annotated[
    list[int] | None, typer.Option(help="Just loads with so many streams, may be repeated.")
]
Without = Annotated[list[str] | None, typer.Option(help="Leave a contestant out, may be repeated.")]
Peers = Annotated[bool, typer.Option(help="Install or build other engines and measure them too.")]
Missing = Annotated[
    bool, typer.Option("--missing", help="Only what the report in --output-dir does not have yet.")
]
Repeats = Annotated[int, typer.Option(min=1, help="Of every measurement.")]
Threads = Annotated[
    int | None, typer.Option(min=1, help="CPU threads of every engine; by default all cores.")
]
OutputDir = Annotated[Path, typer.Option(help="Where worker-cpu.md and worker-cpu.json are written.")]
PeersDir = Annotated[Path, typer.Option(help="Where other engines are installed or built, once.")]
ModelsDir = Annotated[Path, typer.Option(help="Where random checkpoints are made, once; about 10 GB.")]
BundledModel = Annotated[
    Path, typer.Option(help="Folder of the bundled model, whose tokenizer the checkpoints get.")
]


def worker_command(
    quick: Quick = False,
    only: Lanes = None,
    shape: ShapeNames = None,
    group: Groups = None,
    streams: StreamCounts = None,
    without: Without = None,
    peers: Peers = True,
    missing: Missing = False,
    repeats: Repeats = 5,
    threads: Threads = None,
    output_dir: OutputDir = Path("docs/reports"),
    peers_dir: PeersDir = DEFAULT_FOLDER,
    models_dir: ModelsDir = MODELS_FOLDER,
    bundled_model: BundledModel = BUNDLED_MODEL,
) -> None:
    """Measure the worker on CPUs against its bars and beside other engines, and write the report.

    Starts and ends every server itself: the worker, llama.cpp's `llama-server`, vLLM for CPUs, and
    transformers, each with all cores, in turn. Takes about 40 minutes, the first time some more to install or
    build the others, and wants the machine for itself; how far it was disturbed is in the report. Each cell
    is written as soon as it is done and takes the place of an earlier result. Ends with status 1 when a cell
    could not be measured.
    """
    left_out = [*(without or ()), *(() if peers else PEERS)]
    if unknown := sorted(set(left_out) - set(ALL_CONTESTANTS)):
        fail(f"There is no contestant {unknown[0]}; there are {', '.join(ALL_CONTESTANTS)}.")
    page = output_dir / "worker-cpu.md"
    cells = quick_plan() if quick else full_plan(repeats)
    if missing:
        cells = without_results(cells, _earlier(page.with_suffix(".json")))
    settings = WorkerSettings(
        command=command_line(),
        cells=chosen(cells, only or (), shape or (), group or (), streams or (), left_out),
        peers_folder=peers_dir,
        models_folder=models_dir,
        tokenizer=bundled_model,
        quick=quick,
    )
    if threads is not None:
        settings = msgspec.structs.replace(settings, threads=threads)
    if not settings.cells:
        fail("Nothing is left to be measured; give fewer options.")
    _measure(settings, page)


def _measure(settings: WorkerSettings, page: Path) -> None:
    raw = page.with_suffix(".json")

    def write(bench: WorkerBench) -> None:
        write_json(raw, bench)
        page.write_text(render_worker(bench, raw.name), encoding="utf-8")

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are ended then, too
    with steps(number_of_steps(settings)) as on_step:
        try:
            bench = run_worker_bench(settings, _earlier(raw), on_step, write)
        except ServerFailed as error:
            fail(str(error))
    console.print(terminal_table(worker_figures(bench)))
    console.print(f"Wrote {page} and {raw}.")
    keys = [cell.key for cell in settings.cells]
    if reasons := [f"{key}: {bench.failed[key]}" for key in keys if key in bench.failed]:
        fail("\n".join(reasons))


def without_results(cells: Iterable[Cell], earlier: WorkerBench | None) -> tuple[Cell, ...]:
    """The cells that an earlier run has not measured."""
    return tuple(cell for cell in cells if earlier is None or cell.key not in earlier.results)


def _earlier(raw: Path) -> WorkerBench | None:
    """What an earlier run wrote; `None` when there is none, or it was another version's."""
    try:
        return msgspec.json.decode(raw.read_bytes(), type=WorkerBench)
    except (OSError, msgspec.DecodeError):
        return None
