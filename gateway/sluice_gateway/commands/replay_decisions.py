"""`sluice replay-decisions`: a decision log, run through the router of this version."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sluice_gateway.config import ConfigError


def replay_decisions(
    file: Annotated[Path, typer.Argument(help="A file of the folder `decision_log.folder`.")],
) -> None:
    """Decide again what a decision log holds, and show the first decision that differs. Exit status 1: one
    does."""
    # Takes a while to import; other commands do without.
    from sluice_router.decision_replay import LogError, replay

    try:
        with file.open("rb") as lines:
            replayed = replay(lines)
    except OSError as error:
        raise ConfigError(f"Cannot read the decision log {file}: {error.strerror}.") from None
    except LogError as error:
        raise ConfigError(f"{file}: {error}") from None
    different = replayed.difference
    if different is None:
        typer.echo(f"OK: {replayed.calls} calls, {replayed.decisions} decisions, all as they were.")
        return
    typer.echo(f"logged: {different.logged}")
    typer.echo(f"now:    {different.now}")
    raise ConfigError(f"{file}: after {replayed.calls} calls, line {different.line} differs.")
