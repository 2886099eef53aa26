"""The command `sluice-bench rehearse`: starts the stage, plays scenes, prints what the clients measured."""

from __future__ import annotations

import datetime
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from sluice_bench.environment import describe
from sluice_bench.experiments.plan import BUNDLED_FOLDER
from sluice_bench.experiments.requirement import RequirementMissing, need_stack
from sluice_bench.processes import ServerFailed
from sluice_bench.rehearsal.finding import Finding, lines
from sluice_bench.rehearsal.page import Rehearsal, render
from sluice_bench.rehearsal.program import SCENES, chosen
from sluice_bench.rehearsal.stage import stage
from sluice_bench.terminal import command_line, console, fail, steps, write_json

Scenes = Annotated[
    list[str] | None, typer.Option("--scene", help=f"Just this one of {', '.join(SCENES)}; may be repeated.")
]
BundledModel = Annotated[
    Path, typer.Option(help="Folder of the bundled model.", show_default="worker-core/models/sluice-tiny")
]
Output = Annotated[
    Path | None,
    typer.Option(help="A Markdown page to write, all of it beside it as .json; without, it is printed only."),
]


def rehearse_command(
    scene: Scenes = None, output: Output = None, bundled_model: BundledModel = BUNDLED_FOLDER
) -> None:
    """See what the router promises: two real workers, one of them slowed, three tenants, and the gateway.

    Starts all of it on loopback, plays one scene after another in a minute, and prints what is promised, what
    the clients measured, and what had to be so. Ends with status 1 when something was not, 2 when something
    is missing.
    """
    if not hasattr(signal, "SIGSTOP"):
        fail("This slows a worker down by stopping its process for most of the time; Windows cannot.", 2)
    try:
        names = chosen(scene or ())
    except ValueError as error:
        fail(f"{error}.")
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as `nohup` wants it
            signal.signal(number, lambda number, _: sys.exit(128 + number))  # so that the servers end, too
    try:
        need_stack()
        with steps(1 + len(names)) as on_step:
            rehearsal = _played(names, bundled_model, on_step)
    except RequirementMissing as error:
        fail(str(error), status=2)
    except (ServerFailed, OSError) as error:
        fail(str(error))
    for finding in rehearsal.findings:
        for line in lines(finding):
            console.print(line, markup=False, soft_wrap=True, highlight=False)
    if output is not None:
        _write(rehearsal, output)
    if broken := rehearsal.broken():
        fail(f"{broken} of the above are broken.")


def _played(names: Sequence[str], model: Path, on_step: Callable[[str], None]) -> Rehearsal:
    environment, now = describe(), datetime.datetime.now(datetime.UTC)
    on_step("starting two workers and a gateway")
    found: list[Finding] = []
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as folder, stage(model, Path(folder)) as ready:
        for name in names:
            on_step(name)
            found.append(SCENES[name](ready))
        compiled = ready.is_compiled()
    return Rehearsal(
        command=command_line(),
        played_at=now.isoformat(timespec="minutes"),
        environment=environment,
        compiled=compiled,
        findings=found,
    )


def _write(rehearsal: Rehearsal, page: Path) -> None:
    data = page.with_suffix(".json")
    write_json(data, rehearsal)
    page.write_text(render(rehearsal, data.name), encoding="utf-8")
    console.print(f"Wrote {page} and {data}.")
