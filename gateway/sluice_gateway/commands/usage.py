"""`sluice usage`: what was used and what it cost, from the ledger's database."""

from __future__ import annotations

import os
import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sluice_gateway import config
from sluice_gateway.config import ConfigError


class Format(StrEnum):
    """How the answer is written."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


def usage(
    config_file: Annotated[
        Path | None, typer.Option("--config", "-c", help="Configuration file, as for `sluice serve`.")
    ] = None,
    by: Annotated[
        str, typer.Option(help="Any of tenant, key, model, backend, quant, kind, day, hour; with commas.")
    ] = "tenant,model",
    since: Annotated[str, typer.Option(help="From when: 7d, 24h, 30m, or an ISO 8601 time.")] = "7d",
    until: Annotated[str | None, typer.Option(help="To when, not included; the same. Default: now.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant.")] = None,
    key: Annotated[str | None, typer.Option(help="Only this key, by its id.")] = None,
    model: Annotated[str | None, typer.Option(help="Only this model, as clients write it.")] = None,
    backend: Annotated[str | None, typer.Option(help="Only this backend.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Comma-separated, with a head line.")] = False,
) -> None:
    """Show what was used and what it cost."""
    # SQLAlchemy and rich take a while to import; the other commands need neither.
    from sluice_gateway.ledger import printout, question
    from sluice_gateway.store.database import StoreError

    if as_json and as_csv:
        raise typer.BadParameter("choose one of --json and --csv")
    form = Format.JSON if as_json else Format.CSV if as_csv else Format.TABLE
    names = {"tenant": tenant, "key": key, "model": model, "backend": backend}
    try:
        asked = question.read_question(by, since, until, names, time.time())
    except question.QuestionError as error:
        raise typer.BadParameter(str(error)) from None
    settings = config.for_serving(config_file, os.environ)
    try:
        printout.show(settings.store.url, asked, form.value, sys.stdout)
    except StoreError as error:
        raise ConfigError(str(error)) from error
