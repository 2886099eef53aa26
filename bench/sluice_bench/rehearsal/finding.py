"""What a scene showed: a table of what clients measured, and what had to be so."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec


class Check(msgspec.Struct, frozen=True):
    """One thing that had to be so, in words that have its figures."""

    line: str
    good: bool


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Of one scene."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    checks: tuple[Check, ...]

    @property
    def good(self) -> bool:
        """Everything was as it had to be."""
        return all(check.good for check in self.checks)

    def broken(self) -> list[str]:
        """What was not."""
        return [check.line for check in self.checks if not check.good]


def lines(finding: Finding) -> Iterator[str]:
    """As a page of Markdown has it."""
    yield f"## {finding.title}"
    yield ""
    yield from _table(finding.header, finding.rows)
    yield ""
    yield from (f"- {'ok' if check.good else 'BROKEN'}: {check.line}" for check in finding.checks)
    yield ""


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """With columns so wide that it can be read as it is."""
    widths = [max(len(row[at]) for row in (header, *rows)) for at in range(len(header))]
    for row in (header, ["-" * width for width in widths], *rows):
        yield f"| {' | '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))} |"
