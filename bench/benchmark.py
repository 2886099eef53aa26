"""The short way in: `python bench/benchmark.py --concurrency 10 --suite short --output batched.csv`.

It is `sluice-bench run` with few options, which starts gateway and bundled worker itself where no server is
given. A row of the CSV is a request.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from sluice_bench.commands import run_options as options
from sluice_bench.commands.run_command import run_command
from sluice_bench.experiments.requirement import RequirementMissing
from sluice_bench.experiments.stack import bundled_gateway
from sluice_bench.processes import ServerFailed
from sluice_bench.terminal import fail

Url = Annotated[str | None, typer.Option(help="A server that is running; by default one is started.")]
Concurrency = Annotated[int, typer.Option(min=1, help="So many requests are in flight at once.")]
Output = Annotated[Path, typer.Option(help="The CSV; FILE.parquet is a run file.")]


def main(
    concurrency: Concurrency = 1,
    suite: options.Suite = "short",
    requests: options.Requests = 40,
    output: Output = Path("run.csv"),
    url: Url = None,
) -> None:
    """Ask a server with so many users at once, print the figures and write every request down."""
    with ExitStack() as running:
        try:
            server = url or running.enter_context(bundled_gateway())
        except RequirementMissing as error:
            fail(str(error), status=2)
        except ServerFailed as error:
            fail(str(error))
        run_command(server, concurrency=concurrency, suite=suite, requests=requests, output=output)


if __name__ == "__main__":
    typer.run(main)
