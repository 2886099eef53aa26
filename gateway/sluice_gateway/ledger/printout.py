"""The ledger's sums for people and programs: a table, JSON lines, or CSV.

Pages are written as they come, except for the table, whose columns need all of them to find their widths.
"""

from __future__ import annotations

import asyncio
import csv
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Literal, TextIO

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sluice_gateway.ledger.question import Question
from sluice_gateway.ledger.report import MAX_PAGE, UsageReport, UsageSum
from sluice_gateway.store.database import UNAVAILABLE, Database, StoreError

Format = Literal["table", "json", "csv"]

_FIGURES: Mapping[str, str] = {
    "requests": "requests",
    "failed": "failed",
    "from_cache": "from cache",
    "prompt_tokens": "prompt",
    "cached_tokens": "cached",
    "completion_tokens": "completion",
    "cost": "cost",
    "queue_ms": "queue ms",
    "first_token_ms": "TTFT ms",
    "total_ms": "total ms",
}
"""Names of the sums, and their headings in a table."""


def show(store_url: str, asked: Question, form: Format, out: TextIO) -> None:
    """Write the answer. Raises `StoreError` when the database cannot be read."""
    asyncio.run(_show(store_url, asked, form, out))


async def _show(store_url: str, asked: Question, form: Format, out: TextIO) -> None:
    database = Database(store_url)
    writers: dict[Format, Callable[[], Any]] = {
        "table": lambda: _write_table(_pages(database, asked), asked, out),
        "json": lambda: _write_json(_pages(database, asked), out),
        "csv": lambda: _write_csv(_pages(database, asked), asked, out),
    }
    try:
        await database.migrate()
        await writers[form]()
    except StoreError:
        raise
    except UNAVAILABLE as error:
        raise StoreError(f"Cannot read the usage ledger: {str(error).splitlines()[0]}.") from error
    finally:
        await database.aclose()


async def _pages(database: Database, asked: Question) -> AsyncIterator[list[UsageSum]]:
    report, offset = UsageReport(database), 0
    while True:
        page = await report.sums(asked.selection, asked.by, limit=MAX_PAGE, offset=offset)
        yield page.data
        if page.next_offset is None:
            return
        offset = page.next_offset


async def _write_json(pages: AsyncIterator[list[UsageSum]], out: TextIO) -> None:
    async for page in pages:
        for line in page:
            figures = msgspec.structs.asdict(line)
            out.write(msgspec.json.encode(figures.pop("group") | figures).decode() + "\n")


async def _write_csv(pages: AsyncIterator[list[UsageSum]], asked: Question, out: TextIO) -> None:
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*asked.by, *_FIGURES])
    async for page in pages:
        for line in page:
            figures = ("" if (value := getattr(line, name)) is None else value for name in _FIGURES)
            writer.writerow([*(_harmless(value) for value in line.group.values()), *figures])


def _harmless(name: str) -> str:
    """Model names come from clients, and a spreadsheet would run one that begins like a formula."""
    return "'" + name if name.startswith(("=", "+", "-", "@")) else name


async def _write_table(pages: AsyncIterator[list[UsageSum]], asked: Question, out: TextIO) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in asked.by:
        table.add_column(name, overflow="fold")
    for heading in _FIGURES.values():
        table.add_column(heading, justify="right", no_wrap=True)
    async for page in pages:
        for line in page:
            # Not as markup: names may hold brackets.
            cells = [*line.group.values(), *(_cell(name, getattr(line, name)) for name in _FIGURES)]
            table.add_row(*(Text(cell) for cell in cells))
    console = Console(file=out, highlight=False, soft_wrap=not out.isatty())
    if table.row_count:
        console.print(table)
    else:
        console.print("No requests in this time.")


def _cell(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    if name == "cost":
        return f"{value:,.6f}"
    return f"{value:,.1f}" if name.endswith("_ms") else f"{value:,}"
