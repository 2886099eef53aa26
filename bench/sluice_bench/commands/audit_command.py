"""The command `sluice-bench audit`: does a server do the work that it is measured by?"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from sluice_bench.api_calls import ApiFailed, Server
from sluice_bench.audit.auditing import STEPS, AuditSettings, audit
from sluice_bench.audit.finding import AuditRecord, Verdict
from sluice_bench.commands import run_options as options
from sluice_bench.commands.run_command import without_secrets
from sluice_bench.commands.server_address import first_model, header_of, target_of
from sluice_bench.terminal import command_line, console, fail, steps, write_json
from sluice_bench.workloads.corpus import CorpusError, load_corpus

_COLOURS: dict[Verdict, str] = {"pass": "green", "fail": "red", "cannot tell": "yellow"}


def audit_command(
    url: options.Url,
    headers: options.Headers = None,
    model: options.Model = None,
    pairs: Annotated[
        int, typer.Option(min=4, max=64, help="Fresh prompts, each asked beside a repeated one.")
    ] = 8,
    max_tokens: Annotated[int, typer.Option(min=8, help="Of each answer.")] = 64,
    api_key: options.ApiKey = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of the prompts; by default new ones that nobody has asked.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Write the findings here, as JSON.")] = None,
) -> None:
    """Look for cached answers, truncated ones, ignored seeds, and token counts that do not agree.

    Each finding says what it rests on. Ends with status 1 when something was found; what cannot be told from
    outside is said and changes nothing.
    """
    target = target_of(url)
    server = Server(
        target=target,
        model=model or first_model(target, api_key),
        headers=tuple(header_of(text) for text in headers or ()),
        api_key=api_key,
    )
    settings = AuditSettings(
        server=server,
        seed=secrets.randbits(31) if seed is None else seed,
        pairs=pairs,
        max_tokens=max_tokens,
        command=without_secrets(command_line(), api_key, headers or ()),
    )
    try:
        with steps(STEPS) as on_step:
            record = audit(settings, load_corpus(), on_step)
    except ApiFailed as error:
        fail(str(error))
    except CorpusError as error:
        fail(f"{str(error)[:1].upper()}{str(error)[1:]}.")
    show(record)
    if output is not None:
        write_json(output, record)
        console.print(f"Wrote {output}.", highlight=False)
    if record.failed:
        raise typer.Exit(1)


def show(record: AuditRecord) -> None:
    """Print the findings."""
    table = Table(title=f"{record.model} at {record.url}", show_lines=True)
    for column in ("check", "verdict", "evidence"):
        table.add_column(column)
    for finding in record.findings:
        colour = _COLOURS[finding.verdict]
        verdict = f"[{colour}]{finding.verdict}[/{colour}]"
        table.add_row(finding.check, verdict, escape(finding.evidence))
    console.print(table)
