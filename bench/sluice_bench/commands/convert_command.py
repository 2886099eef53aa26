"""The command `sluice-bench convert`: runs to and from the formats of other tools."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from sluice_bench.convert.field_map import BadForeignFile, Refused
from sluice_bench.convert.formats import SUFFIXES, FormatName, export_as, import_from
from sluice_bench.convert.imported_run import run_of
from sluice_bench.terminal import console, fail


def convert_command(
    file: Annotated[Path, typer.Argument(help="A run file, or with --from the other tool's.")],
    to: Annotated[
        FormatName | None, typer.Option("--to", help="Write the run in this tool's format.")
    ] = None,
    source: Annotated[
        FormatName | None, typer.Option("--from", help="Read this tool's file and write a run file.")
    ] = None,
    benchmark: Annotated[
        int | None, typer.Option(min=1, help="Which one, of a report of guidellm that has several.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="By default beside FILE, named after the tool, or with .parquet.")
    ] = None,
) -> None:
    """Convert a run to the JSON of `vllm bench serve`, GuideLLM or AIPerf, or a file of theirs to a run file.

    Fields that mean the same are computed from the raw stamps by the other tool's own definition. Those that
    do not map are left out and listed, each with the reason.
    """
    if (to is None) == (source is None):
        fail("Say either --to or --from, and which tool.")
    try:
        if to is not None:
            if benchmark is not None:
                fail("--benchmark is for --from guidellm.")
            _export(file, to, output or file.with_name(f"{file.stem}-{to}{SUFFIXES[to]}"))
        elif source is not None:
            _import(file, source, benchmark, output or file.with_suffix(".parquet"))
    except (BadForeignFile, OSError) as error:
        fail(f"{str(error)[:1].upper()}{str(error)[1:]}.")


def _export(file: Path, name: FormatName, output: Path) -> None:
    from sluice_bench.recording.run_file import BadRunFile, read_run

    try:
        run = read_run(file)
    except BadRunFile as error:
        fail(f"{error}.")
    exported = export_as(name, run)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_bytes(exported.document)
    _tell(exported.refused, exported.remarks, f"Not in a file of {name}")
    console.print(f"Wrote {output}.", highlight=False)


def _import(file: Path, name: FormatName, benchmark: int | None, output: Path) -> None:
    from sluice_bench.recording.run_file import write_run

    data = file.read_bytes()
    imported = import_from(name, data, benchmark)
    run = run_of(imported, data, file.name)
    write_run(run, output)
    _tell(imported.refused, imported.remarks, f"Not taken from {file.name}")
    console.print(
        f"Wrote {output} with {len(run.requests)} requests; figures {run.meta.figures_sha256[:16]}. "
        "It has no calibration, so it counts as void.",
        highlight=False,
    )


def _tell(refused: Sequence[Refused], remarks: Sequence[str], title: str) -> None:
    table = Table("field", "why", title=title)
    for field in refused:
        table.add_row(field.theirs, field.why)
    if refused:
        console.print(table)
    for remark in remarks:
        console.print(f"- {remark}", highlight=False, markup=False)
