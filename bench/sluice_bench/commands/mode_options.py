"""Options and output that `local`, `http`, `compare` and `speculative` share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.table import Table

from sluice_bench.commands.measuring import measure_showing, null_server
from sluice_bench.commands.run_command import load_of, without_secrets
from sluice_bench.experiments.iterations import Iterations, Spread, iterate, spreads
from sluice_bench.experiments.results_folder import keep
from sluice_bench.formatting import number
from sluice_bench.recording.run_record import RunRecord
from sluice_bench.run_load import LoadOptions, RunLoad
from sluice_bench.runs.measured_run import RunSettings
from sluice_bench.schedule_options import ScheduleOptions
from sluice_bench.target import Target
from sluice_bench.terminal import command_line, console, fail
from sluice_bench.workload import Asking
from sluice_bench.workloads.corpus import SuiteName

Concurrency = Annotated[int, typer.Option(min=1, help="Closed loop: so many requests are in flight at once.")]
Requests = Annotated[int, typer.Option(min=1, help="Of an iteration.")]
WarmUp = Annotated[int, typer.Option(min=0, help="Requests before the first iteration, in no figure.")]
Count = Annotated[int, typer.Option("--iterations", min=1, help="How often the load is put on.")]
Variant = Annotated[
    str,
    typer.Option(
        help="Keep the run files below this name, for `compare --baseline NAME`; else none is kept."
    ),
]
WorkerArgs = Annotated[
    str, typer.Option(help="More options of the worker, as one word: '--quantization int8'.")
]


class ModeLoad(msgspec.Struct, frozen=True, kw_only=True):
    """What was typed of the load."""

    suite: SuiteName
    concurrency: int
    rate: float | None
    requests: int
    warm_up: int
    iterations: int
    seed: int
    ignore_eos: bool

    @property
    def places(self) -> int | None:
        """Of a closed loop."""
        return self.concurrency if self.rate is None else None

    def planned(self) -> Iterations:
        """Ends the command when options contradict each other."""
        return Iterations(
            count=self.iterations,
            requests=self.requests,
            warm_up=self.warm_up,
            seed=self.seed,
            load_of=self._load,
        )

    def _load(self, count: int, seed: int) -> RunLoad:
        return load_of(
            LoadOptions(
                requests=count,
                seed=seed,
                concurrency=self.places,
                arrivals=ScheduleOptions(rate=self.rate),
                suite=self.suite,
                preset=None,
                fit=None,
            )
        )

    def settings(self, url: Target, model: str, api_key: str | None, variant: str) -> RunSettings:
        """Of one server; the load is put in later."""
        return RunSettings(
            target=url,
            asking=Asking(model=model, api_key=api_key, ignore_eos=self.ignore_eos),
            load=self._load(1, 0),
            concurrency=self.places,
            seed=self.seed,
            variant=variant,
            command=without_secrets(command_line(), api_key, ()),
        )


def measured(
    load: ModeLoad, sides: Mapping[str, RunSettings], results: Path | None
) -> dict[str, list[RunRecord]]:
    """The runs of each side, kept below `results` if that is wanted.

    Ends the command when a server cannot be reached, or a request failed.
    """
    with null_server() as null:
        runs = iterate(load.planned(), sides, lambda settings, what: measure_showing(settings, null, what))
    for name, found in runs.items():
        for run in found:
            if results is not None and run.meta.variant:
                keep(run, results)
            failed = [record for record in run.requests if record.failure is not None]
            if failed:
                first = f"{failed[0].failure}: {failed[0].message}"
                fail(f"{name}: {len(failed)} requests failed, the first with {first}")
    return runs


def print_spreads(title: str, runs: Sequence[RunRecord]) -> None:
    """Mean, median and standard deviation of each figure."""
    console.print(f"{title}, {len(runs)} iterations of {len(runs[0].requests)} requests", soft_wrap=True)
    table = Table()
    for column in ("", "mean", "median", "std"):
        table.add_column(column, justify="right" if column else "left")
    for name, spread in spreads(runs).items():
        table.add_row(name, *cells(spread))
    console.print(table)
    say_void(title, runs)


def cells(spread: Spread) -> list[str]:
    """For a table."""
    std = "–" if spread.std is None else number(spread.std)
    return [number(spread.mean), number(spread.median), std]


def say_void(title: str, runs: Sequence[RunRecord]) -> None:
    """Whether the client's own error spoils the latencies."""
    void = sum(run.meta.calibration.void for run in runs)
    if void:
        console.print(
            f"VOID: in {void} of {len(runs)} iterations of {title} the client's own error was over the "
            "limit; their latencies say more of it than of the server.",
            soft_wrap=True,
        )
