"""A measured run from a command: with a null server beside it and a bar."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sluice_bench.processes import null_server_process
from sluice_bench.recording.run_record import RunRecord
from sluice_bench.runs.measured_run import RunSettings, measure
from sluice_bench.target import Target
from sluice_bench.terminal import fail, progress


@contextmanager
def null_server() -> Iterator[Target]:
    """One for all runs of a command."""
    with (
        tempfile.TemporaryDirectory(prefix="sluice-bench-") as name,
        null_server_process(Path(name)) as null,
    ):
        yield Target.parse(null.url)


def measure_here(settings: RunSettings) -> RunRecord:
    """One run; ends the command when the server is not there."""
    with null_server() as null:
        return measure_showing(settings, null, "requests")


def measure_showing(settings: RunSettings, null: Target, what: str) -> RunRecord:
    """One run with a bar named `what`; ends the command when the server is not there."""
    with progress(what, len(settings.load.workload.items)) as show:
        try:
            return measure(settings, null, show)
        except OSError as error:
            fail(f"{settings.target.authority} cannot be reached: {error}.")
