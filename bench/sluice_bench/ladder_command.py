"""The command `sluice-bench ladder`: reads its options, shows progress, prints or writes the report."""

from __future__ import annotations

import datetime
import signal
import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from sluice_bench import ladder
from sluice_bench.baseline import BUNDLED_MODEL
from sluice_bench.ladder import Ladder, LadderSettings
from sluice_bench.ladder_report import render_ladder
from sluice_bench.processes import ServerFailed
from sluice_bench.terminal import command_line, console, fail, steps, write_json

Output = Annotated[
    Path | None,
    typer.Option(
        help="The Markdown page, raw rows beside it as .json; by default docs/reports/batching.md, and "
        "with --only, --model or --quick the page is just printed."
    ),
]
Quick = Annotated[
    bool, typer.Option("--quick", help="Tiny counts and a toy model; the figures mean nothing.")
]
Only = Annotated[
    list[str] | None,
    typer.Option(help="Just these: a mode such as dynamic, or one rung, dynamic-paged. May be repeated."),
]
Model = Annotated[
    list[str] | None, typer.Option(help="Just this model, tinyllama-1.1b or sluice-tiny; may be repeated.")
]
Repeats = Annotated[int | None, typer.Option(min=1, help="Repeats of every measurement.")]
PromptTokens = Annotated[int | None, typer.Option(min=1, help="Length of every prompt.")]
OutputTokens = Annotated[
    int | None,
    typer.Option(min=17, max=192, help="Mean length of an answer, before the longest are cut."),
]
BundledModel = Annotated[Path, typer.Option(help="Folder of the bundled model.")]


def ladder_command(
    output: Output = None,
    quick: Quick = False,
    only: Only = None,
    model: Model = None,
    repeats: Repeats = None,
    prompt_tokens: PromptTokens = None,
    output_tokens: OutputTokens = None,
    bundled_model: BundledModel = BUNDLED_MODEL,
) -> None:
    """Measure what each batching mode of the worker buys on the same requests, and write the report.

    Starts and ends every worker itself. A repeat of everything takes a quarter of an hour on two cores; it
    wants the machine for itself, and how far it was disturbed is in the report.
    """
    load = ladder.QUICK_LOAD if quick else ladder.LadderLoad()
    try:
        settings = LadderSettings(
            load=msgspec.structs.replace(
                load,
                repeats=repeats or load.repeats,
                prompt_tokens=prompt_tokens or load.prompt_tokens,
                mean_output_tokens=output_tokens or load.mean_output_tokens,
            ),
            models=ladder.choose_models(ladder.QUICK_MODELS if quick else ladder.MODELS, model),
            rungs=ladder.choose_rungs(only),
            bundled_model=bundled_model,
        )
    except ValueError as error:
        fail(str(error))
    measured = _measured(settings, quick)
    if output is None and (only or model or quick):
        console.print(render_ladder(measured, "batching.json"), markup=False, soft_wrap=True)
    else:
        _write(measured, output or Path("docs/reports/batching.md"))


def _measured(settings: LadderSettings, quick: bool) -> Ladder:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are ended then, too
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes")
    with steps(ladder.number_of_steps(settings)) as on_step:
        try:
            return ladder.measure_ladder(settings, command_line(), now, quick, on_step)
        except ServerFailed as error:
            fail(str(error))


def _write(measured: Ladder, page: Path) -> None:
    raw = page.with_suffix(".json")
    write_json(raw, measured)
    page.write_text(render_ladder(measured, raw.name), encoding="utf-8")
    console.print(f"Wrote {page} and {raw}.")
