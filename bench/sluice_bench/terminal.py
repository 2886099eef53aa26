"""What the commands of `sluice-bench` share: output, progress, failure, files."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn, Protocol

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

console = Console()
errors = Console(stderr=True)


def fail(message: str, status: int = 1) -> NoReturn:
    """Say why in red and end: with status 2 when something needed is missing."""
    errors.print(message, style="red", markup=False, soft_wrap=True)
    raise typer.Exit(status)


def command_line() -> str:
    """As it was typed, about."""
    return shlex.join(["sluice-bench", *sys.argv[1:]])


def write_json(path: Path, value: object) -> None:
    """Write indented JSON, the folder included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n")


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=errors,
        transient=True,
        refresh_per_second=1,  # drawing costs CPU on the machine that is measured
    )


class ShowProgress(Protocol):
    """Told how many are done, and the total where it has changed."""

    def __call__(self, done: int, total: int | None = None) -> None:
        """Show it."""


@contextmanager
def progress(what: str, total: int) -> Iterator[ShowProgress]:
    """A bar that is told how many are done."""
    with _bar() as bar:
        task = bar.add_task(what, total=total)
        yield lambda done, total=None: bar.update(task, completed=done, total=total)


@contextmanager
def steps(total: int) -> Iterator[Callable[[str], None]]:
    """A bar that is told the name of each step as it begins; lines where there is no terminal."""
    with _bar() as bar:
        task = bar.add_task("starting", total=total)
        started = 0

        def on_step(name: str) -> None:
            nonlocal started
            if not errors.is_terminal:
                errors.print(f"{time.strftime('%H:%M:%S')} {name}", markup=False, highlight=False)
            bar.update(task, description=name, completed=started)
            started += 1

        yield on_step
