"""The command `sluice-bench verify`: do recorded runs still add up?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sluice_bench.recording.verification import complaints, number_of_figures
from sluice_bench.terminal import console, errors, fail


def verify_command(
    files: Annotated[
        list[Path], typer.Argument(help="Run files, as `run --output FILE.parquet` writes them.")
    ],
) -> None:
    """Derive every figure of recorded runs from their requests again, and check their digests.

    Ends with status 1 when a figure or a digest is another than the file says, or a file cannot be read.
    """
    from sluice_bench.recording.run_file import BadRunFile, read_run

    bad = 0
    for path in files:
        try:
            run = read_run(path)
        except (BadRunFile, OSError) as error:
            fail(f"{error}.")
        found = complaints(run)
        bad += bool(found)
        for sentence in found:
            errors.print(f"{path}: {sentence}.", style="red", markup=False, soft_wrap=True)
        if not found:
            console.print(
                f"{path}: {len(run.requests)} requests, {number_of_figures(run)} figures, all as recorded; "
                f"figures {run.meta.figures_sha256[:16]}.",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
    if bad:
        raise typer.Exit(1)
