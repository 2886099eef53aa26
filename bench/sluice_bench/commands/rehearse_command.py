"""The command `sluice-bench rehearse`: starts the stage, plays scenes, prints what the clients measured."""

from __future__ import annotations

import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from sluice_bench.experiments.plan import BUNDLED_FOLDER
from sluice_bench.experiments.requirement import RequirementMissing, need_stack
from sluice_bench.processes import ServerFailed
from sluice_bench.rehearsal.finding import Finding, lines
from sluice_bench.rehearsal.program import SCENES, chosen
from sluice_bench.rehearsal.stage import stage
from sluice_bench.terminal import console, fail, steps

Scenes = Annotated[
    list[str] | None, typer.Option("--scene", help=f"Just this one of {', '.join(SCENES)}; may be repeated.")
]
BundledModel = Annotated[
    Path, typer.Option(help="Folder of the bundled model.", show_default="worker-core/models/sluice-tiny")
]


def rehearse_command(scene: Scenes = None, bundled_model: BundledModel = BUNDLED_FOLDER) -> None:
    """See what the router promises: two real workers, one of them slowed, three tenants, and the gateway.

    Starts all of it on loopback, plays one scene after another in half a minute, and prints what the clients
    measured and what had to be so. Ends with status 1 when something was not, 2 when something is missing.
    """
    if not hasattr(signal, "SIGSTOP"):
        fail("This slows a worker down by stopping its process for most of the time; Windows cannot.", 2)
    try:
        names = chosen(scene or ())
    except ValueError as error:
        fail(f"{error}.")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are ended then, too
    try:
        need_stack()
        with steps(1 + len(names)) as on_step:
            findings = _played(names, bundled_model, on_step)
    except RequirementMissing as error:
        fail(str(error), status=2)
    except (ServerFailed, OSError) as error:
        fail(str(error))
    for finding in findings:
        for line in lines(finding):
            console.print(line, markup=False, soft_wrap=True, highlight=False)
    if broken := sum(len(finding.broken()) for finding in findings):
        fail(f"{broken} of the above are broken.")


def _played(names: Sequence[str], model: Path, on_step: Callable[[str], None]) -> list[Finding]:
    on_step("starting two workers and a gateway")
    found = []
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as folder, stage(model, Path(folder)) as ready:
        for name in names:
            on_step(name)
            found.append(SCENES[name](ready))
    return found
