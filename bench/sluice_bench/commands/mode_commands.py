"""The commands `local`, `http`, `compare` and `speculative`: one load several times, with its spread."""

from __future__ import annotations

import shlex
import signal
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from sluice_bench.commands import mode_options as options
from sluice_bench.commands import run_options
from sluice_bench.commands.mode_options import ModeLoad, cells, measured, print_spreads, say_void
from sluice_bench.commands.server_address import first_model, target_of
from sluice_bench.experiments.iterations import spreads
from sluice_bench.experiments.models import chosen_model
from sluice_bench.experiments.plan import BUNDLED_FOLDER, ExperimentOptions
from sluice_bench.experiments.requirement import RequirementMissing, need_stack, need_worker_option
from sluice_bench.experiments.results_folder import RESULTS, run_files
from sluice_bench.experiments.stack import MODEL_NAME, engine_process, worker_engine
from sluice_bench.processes import ServerFailed
from sluice_bench.recording.run_record import RunRecord
from sluice_bench.target import Target
from sluice_bench.terminal import console, fail

Model = Annotated[
    str, typer.Option(help="A model folder, `sluice-tiny`, or a random model by the name of its shape.")
]
Results = Annotated[Path, typer.Option(help="Folder of run files.")]
BundledModel = Annotated[
    Path, typer.Option(help="Folder of the bundled model.", show_default="worker-core/models/sluice-tiny")
]


def local_command(
    model: Model = "sluice-tiny",
    worker_args: options.WorkerArgs = "",
    suite: run_options.Suite = "short",
    concurrency: options.Concurrency = 1,
    rate: run_options.Rate = None,
    requests: options.Requests = 20,
    warm_up: options.WarmUp = 4,
    iterations: options.Count = 3,
    ignore_eos: run_options.IgnoreEos = False,
    seed: run_options.Seed = 1,
    variant: options.Variant = "",
    results: Results = RESULTS,
    bundled_model: BundledModel = BUNDLED_FOLDER,
) -> None:
    """Measure a model on Sluice's worker, started for it and ended afterwards."""
    load = ModeLoad(
        suite=suite,
        concurrency=concurrency,
        rate=rate,
        requests=requests,
        warm_up=warm_up,
        iterations=iterations,
        seed=seed,
        ignore_eos=ignore_eos,
    )
    _local(load, model, shlex.split(worker_args), variant, results, bundled_model)


def speculative_command(
    draft: Annotated[str, typer.Option(help="Folder of the draft model.")] = "sluice-tiny-draft",
    model: Model = "sluice-tiny",
    suite: run_options.Suite = "short",
    requests: options.Requests = 20,
    warm_up: options.WarmUp = 4,
    iterations: options.Count = 3,
    variant: options.Variant = "",
    results: Results = RESULTS,
    bundled_model: BundledModel = BUNDLED_FOLDER,
) -> None:
    """Measure a model on Sluice's worker with a draft model, one request at a time.

    Ends with status 2 while the installed worker has no speculative decoding.
    """
    option = "--draft-model"
    try:
        need_worker_option(option, "speculative decoding")
    except RequirementMissing as error:
        fail(str(error), status=2)
    load = ModeLoad(
        suite=suite,
        concurrency=1,
        rate=None,
        requests=requests,
        warm_up=warm_up,
        iterations=iterations,
        seed=1,
        ignore_eos=False,
    )
    _local(load, model, [option, draft], variant, results, bundled_model)


def http_command(
    url: run_options.Url,
    model: run_options.Model = None,
    suite: run_options.Suite = "short",
    concurrency: options.Concurrency = 1,
    rate: run_options.Rate = None,
    requests: options.Requests = 20,
    warm_up: options.WarmUp = 4,
    iterations: options.Count = 3,
    ignore_eos: run_options.IgnoreEos = False,
    api_key: run_options.ApiKey = None,
    seed: run_options.Seed = 1,
    variant: options.Variant = "",
    results: Results = RESULTS,
) -> None:
    """Measure a server that is running, several times, and say how far the figures scatter."""
    load = ModeLoad(
        suite=suite,
        concurrency=concurrency,
        rate=rate,
        requests=requests,
        warm_up=warm_up,
        iterations=iterations,
        seed=seed,
        ignore_eos=ignore_eos,
    )
    target = target_of(url)
    settings = load.settings(target, model or first_model(target, api_key), api_key, variant)
    print_spreads(target.authority, measured(load, {"server": settings}, results)["server"])


def compare_command(
    url: run_options.Url,
    baseline: Annotated[
        str,
        typer.Option(
            help="A server to measure in turn, or the name of kept runs (`--variant` of an earlier one)."
        ),
    ],
    model: run_options.Model = None,
    suite: run_options.Suite = "short",
    concurrency: options.Concurrency = 1,
    rate: run_options.Rate = None,
    requests: options.Requests = 20,
    warm_up: options.WarmUp = 4,
    iterations: options.Count = 3,
    ignore_eos: run_options.IgnoreEos = False,
    api_key: run_options.ApiKey = None,
    seed: run_options.Seed = 1,
    variant: options.Variant = "",
    results: Results = RESULTS,
) -> None:
    """Measure a server beside a baseline: another server asked the same in turn, or runs that were kept.

    The ratio is of medians. It is no verdict: whether a difference is more than chance says `ab`.
    """
    load = ModeLoad(
        suite=suite,
        concurrency=concurrency,
        rate=rate,
        requests=requests,
        warm_up=warm_up,
        iterations=iterations,
        seed=seed,
        ignore_eos=ignore_eos,
    )
    target = target_of(url)
    sides = {"server": load.settings(target, model or first_model(target, api_key), api_key, variant)}
    kept: list[RunRecord] = []
    if "://" in baseline:
        other = target_of(baseline)
        sides["baseline"] = load.settings(other, model or first_model(other, api_key), api_key, "")
    else:
        kept = _kept(results, baseline, load)
    runs = measured(load, sides, results)
    _print_comparison(runs.get("baseline", kept), runs["server"])


# --- local -----------------------------------------------------------------------------------------------


def _local(
    load: ModeLoad, model: str, worker_args: list[str], variant: str, results: Path, bundled_model: Path
) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the worker is ended then, too
    try:
        need_stack()
        chosen = chosen_model(ExperimentOptions(model=model, bundled_model=bundled_model))
        engine = worker_engine("worker", chosen.folder, worker_args)
        with (
            tempfile.TemporaryDirectory(prefix="sluice-bench-") as name,
            engine_process(engine, Path(name)) as server,
        ):
            settings = load.settings(Target.parse(server.url), MODEL_NAME, None, variant)
            runs = measured(load, {"worker": settings}, results)["worker"]
    except RequirementMissing as error:
        fail(str(error), status=2)
    except ServerFailed as error:
        fail(str(error))
    except ValueError as error:
        fail(f"{error}.")
    print_spreads(chosen.label, runs)


# --- compare ---------------------------------------------------------------------------------------------


def _kept(results: Path, name: str, load: ModeLoad) -> list[RunRecord]:
    """The newest kept runs of a name, one for each iteration; ends the command if they asked otherwise."""
    from sluice_bench.recording.run_file import BadRunFile, read_run

    files = run_files(results, name)[-load.iterations :]
    if not files:
        fail(
            f"There are no kept runs below {results / name}, and {name!r} is no address; make some with "
            f"--variant {name}, or give http://host:port."
        )
    try:
        runs = [read_run(path) for path in files]
    except (BadRunFile, OSError) as error:
        fail(f"{error}.")
    planned = load.planned()
    asked = {planned.load(iteration).workload.sha256 for iteration in range(load.iterations)}
    loops = {(load.places, load.rate)}
    told = {(run.meta.load.concurrency, run.meta.load.rate_per_s) for run in runs}
    if len(runs) < load.iterations or {run.meta.workload_sha256 for run in runs} != asked or told != loops:
        fail(
            f"The kept runs of {name} asked for other work than this would; give the options that they were "
            "made with (suite, requests, concurrency or rate, iterations, seed)."
        )
    return runs


def _print_comparison(baseline: list[RunRecord], candidate: list[RunRecord]) -> None:
    console.print(f"{len(candidate)} iterations of {len(candidate[0].requests)} requests", soft_wrap=True)
    table = Table()
    for column in ("", "baseline mean", "median", "std", "server mean", "median", "std", "ratio"):
        table.add_column(column, justify="right" if column else "left")
    before, after = spreads(baseline), spreads(candidate)
    for figure in (figure for figure in before if figure in after):
        ratio = after[figure].median / before[figure].median if before[figure].median else None
        shown = "–" if ratio is None else f"{ratio:.3f}"
        table.add_row(figure, *cells(before[figure]), *cells(after[figure]), shown)
    console.print(table)
    say_void("the baseline", baseline)
    say_void("the server", candidate)
