"""The command `sluice-bench parity`: our client beside `vllm bench serve`, on the same server."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from sluice_bench.baseline import BUNDLED_MODEL
from sluice_bench.experiments.models import chosen_model
from sluice_bench.experiments.parity import Lane, ParitySettings, measure_parity, number_of_steps
from sluice_bench.experiments.parity_page import agrees, render_parity
from sluice_bench.experiments.plan import ExperimentOptions
from sluice_bench.experiments.requirement import RequirementMissing
from sluice_bench.model_files import MODELS_FOLDER
from sluice_bench.peer_packages import DEFAULT_FOLDER, PeerUnavailable
from sluice_bench.processes import ServerFailed
from sluice_bench.terminal import command_line, console, errors, fail, steps, write_json


def parity_command(
    output: Annotated[Path, typer.Option(help="The Markdown page; rows go beside it as .json.")] = Path(
        "docs/reports/parity.md"
    ),
    only: Annotated[Lane | None, typer.Option(help="Just this server.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Of each tool on each server, in turn.")] = 7,
    requests: Annotated[int, typer.Option(min=1, help="Of each repeat.")] = 32,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests in flight.")] = 1,
    model: Annotated[
        str, typer.Option(help="Of the worker: a folder, sluice-tiny, or the shape of a random model.")
    ] = "smollm-135m",
    bundled_model: Annotated[Path, typer.Option(help="Folder of the bundled model.")] = BUNDLED_MODEL,
    models_dir: Annotated[
        Path, typer.Option(help="Where random checkpoints are made, once.")
    ] = MODELS_FOLDER,
    peers_dir: Annotated[
        Path, typer.Option(help="Where vLLM for CPUs gets a virtual environment, made once.")
    ] = DEFAULT_FOLDER,
) -> None:
    """Measure the same server with our client and with `vllm bench serve`, and write the report.

    Starts and ends every server itself, takes some minutes, and wants the machine for itself. Ends with
    status 1 when the two differ by more than the bar, 2 when vLLM cannot be had here.
    """
    options = ExperimentOptions(model=model, bundled_model=bundled_model, models_folder=models_dir)
    try:
        choice = chosen_model(options)
    except (ValueError, RequirementMissing, ServerFailed) as error:
        fail(str(error))
    settings = ParitySettings(
        peers_folder=peers_dir,
        model_folder=choice.folder,
        model=choice.label,
        lanes=("null", "worker") if only is None else (only,),
        repeats=repeats,
        requests=requests,
        concurrency=concurrency,
        command=command_line(),
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are ended then, too
    with steps(number_of_steps(settings)) as on_step:
        try:
            parity = measure_parity(settings, on_step)
        except PeerUnavailable as error:
            errors.print(f"This needs vLLM for CPUs: {error}.", style="red", markup=False)
            raise typer.Exit(2) from error
        except (ServerFailed, OSError) as error:
            fail(str(error))
    raw = output.with_suffix(".json")
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(render_parity(parity, raw.name), encoding="utf-8")
    write_json(raw, parity)
    console.print(f"Wrote {output} and {raw}.")
    if not agrees(parity):
        fail("The two clients differ by more than the bar; the page says by how much.")
