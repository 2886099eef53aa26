"""`sluice audit`: who administered what, newest first."""

from __future__ import annotations

from typing import Annotated

import typer

from sluice_gateway.commands import printout
from sluice_gateway.commands.options import ConfigFile, Json
from sluice_gateway.commands.storing import with_service


def audit(
    count: Annotated[int, typer.Option(min=1, help="How many entries.")] = 20,
    after: Annotated[int | None, typer.Option(min=1, help="Go on below the entry with this number.")] = None,
    config_file: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Show the audit log: every administrative action, newest first."""
    page = with_service(config_file, lambda service: service.audit(after=after, count=count))
    printout.show_audit(page.items, as_json)
