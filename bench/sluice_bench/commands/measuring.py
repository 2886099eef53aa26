"""A measured run from a command: with a null server beside it, and a view of how it goes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sluice_bench.commands.live_view import LiveView, live_display
from sluice_bench.processes import null_server_process
from sluice_bench.recording.run_record import RunRecord
from sluice_bench.runs import capacity
from sluice_bench.runs.live import LiveCounts
from sluice_bench.runs.measured_run import RunSettings, load_plan, measure
from sluice_bench.target import Target
from sluice_bench.terminal import errors, fail, progress


@contextmanager
def null_server() -> Iterator[Target]:
    """One for all runs of a command."""
    with (
        tempfile.TemporaryDirectory(prefix="sluice-bench-") as name,
        null_server_process(Path(name)) as null,
    ):
        yield Target.parse(null.url)


def measure_here(settings: RunSettings, *, force: bool = False) -> RunRecord:
    """One run; ends the command when the server is not there, or the load too much for the client."""
    if not force and (reason := capacity.refusal(load_plan(settings), settings.processes)):
        fail(reason)
    with null_server() as null:
        return measure_showing(settings, null, "requests")


def measure_showing(settings: RunSettings, null: Target, what: str) -> RunRecord:
    """One run with a view named `what`; ends the command when the server is not there."""
    with _showing(what, settings.load.requests) as show:
        try:
            return measure(settings, null, on_counts=show)
        except ChildProcessError as error:
            fail(f"The load could not start: {error}.")
        except OSError as error:
            fail(f"{settings.target.authority} cannot be reached: {error}.")


@contextmanager
def _showing(what: str, total: int) -> Iterator[Callable[[LiveCounts], None]]:
    """A table on a terminal, else a bar."""
    if errors.is_terminal:
        live, tell = live_display(LiveView(what, total), errors)
        with live:
            yield tell
        return
    with progress(what, total) as show:
        yield lambda counts: show(counts.finished)
