"""The command `sluice-bench report`: recorded runs as one page, as pictures, as rows."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from sluice_bench.recording.run_record import RunRecord
from sluice_bench.reports.cost import PRICES_FILE, BadPrices, Price, price_named, read_prices
from sluice_bench.reports.csv_table import csv_text
from sluice_bench.reports.frontier import BadQualityFile, read_quality
from sluice_bench.reports.html_page import html_page
from sluice_bench.reports.page import Page
from sluice_bench.reports.png import PillowMissing, png_bytes
from sluice_bench.reports.ratio_plot import BadAbFile, read_ab
from sluice_bench.reports.run_figures import figures_of
from sluice_bench.reports.search_plot import BadSearchFile, read_search
from sluice_bench.reports.sections import Findings, page_of
from sluice_bench.reports.svg import svg_file
from sluice_bench.terminal import console, errors, fail

Found = TypeVar("Found")


def report_command(
    files: Annotated[
        list[Path], typer.Argument(help="Run files, as `run --output FILE.parquet` writes them.")
    ],
    output: Annotated[
        Path | None, typer.Option(help="The page: one HTML file that needs no network.")
    ] = None,
    png: Annotated[Path | None, typer.Option(help="Folder for the pictures as PNG; needs Pillow.")] = None,
    svg: Annotated[Path | None, typer.Option(help="Folder for the pictures as SVG.")] = None,
    csv: Annotated[Path | None, typer.Option(help="One row a request, of all runs.")] = None,
    ab: Annotated[list[Path] | None, typer.Option(help="What `ab --output` wrote; may be repeated.")] = None,
    search: Annotated[Path | None, typer.Option(help="What `search --output` wrote.")] = None,
    quality: Annotated[
        list[Path] | None, typer.Option(help="What `quality --output` wrote; may be repeated.")
    ] = None,
    price: Annotated[
        list[str] | None,
        typer.Option(help="USD per hour, or hardware of the price table; may be repeated."),
    ] = None,
    prices: Annotated[
        Path, typer.Option(help="Price table, JSON.", show_default="the one that comes with it")
    ] = PRICES_FILE,
    title: Annotated[str, typer.Option(help="Of the page; by default what was measured.")] = "",
) -> None:
    """Show recorded runs side by side: figures with intervals, distributions, curves, timelines, cost.

    Give at least one of `--output`, `--png`, `--svg` and `--csv`. Nothing is measured, and every figure is
    derived from the run files.
    """
    if output is None and png is None and svg is None and csv is None:
        fail("Say what to write: --output FILE.html, --png FOLDER, --svg FOLDER or --csv FILE.")
    runs = [(path.stem, _run(path)) for path in files]
    if csv is not None:
        _write(csv, csv_text(runs).encode())
    if output is None and png is None and svg is None:
        return
    page = page_of(
        Findings(
            runs=figures_of(runs),
            comparisons=tuple(_read(path, read_ab) for path in ab or ()),
            search=None if search is None else _read(search, read_search),
            quality=tuple(found for path in quality or () for found in _read(path, read_quality)),
            prices=_prices(price or (), prices),
        ),
        title,
    )
    _write_pictures(page, png, svg)
    if output is not None:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes")
        _write(output, html_page(page, f"Made by sluice-bench report, {now}.").encode())


def _run(path: Path) -> RunRecord:
    from sluice_bench.recording.run_file import BadRunFile, read_run

    try:
        run = read_run(path)
    except (BadRunFile, OSError) as error:
        fail(f"{error}.")
    if not run.requests:
        fail(f"{path} has no requests.")
    return run


def _read(path: Path, reader: Callable[[Path], Found]) -> Found:
    try:
        return reader(path)
    except (BadAbFile, BadSearchFile, BadQualityFile, OSError) as error:
        fail(f"{error}.")


def _prices(named: Sequence[str], table: Path) -> tuple[Price, ...]:
    if not named:
        return ()
    try:
        known = read_prices(table)
        return tuple(price_named(text, known) for text in named)
    except (BadPrices, OSError) as error:
        fail(f"{error}.")


def _write_pictures(page: Page, png: Path | None, svg: Path | None) -> None:
    pictures = [picture for section in page.sections for picture in section.pictures]
    try:
        for picture in pictures:
            if svg is not None:
                _write(svg / f"{picture.name}.svg", svg_file(picture.wide).encode(), quiet=True)
            if png is not None:
                _write(png / f"{picture.name}.png", png_bytes(picture.wide), quiet=True)
    except PillowMissing as error:
        errors.print(f"{error}.", style="red", markup=False)
        raise typer.Exit(2) from error
    for folder in (png, svg):
        if folder is not None:
            console.print(f"Wrote {len(pictures)} pictures to {folder}.", highlight=False, markup=False)


def _write(path: Path, content: bytes, quiet: bool = False) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        fail(f"{path} cannot be written: {error}.")
    if not quiet:
        console.print(f"Wrote {path}, {len(content):,} bytes.", highlight=False, markup=False)
