"""What a scene showed: a table of what clients measured, and what had to be so."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from sluice_bench.rehearsal.asking import Outcome


class Check(msgspec.Struct, frozen=True):
    """One thing that had to be so, in words that have its figures."""

    line: str
    good: bool
    needs_quiet: bool = False
    """Speeds decide it, so only where nobody else makes the machine slower meanwhile."""


def all_served(found: Sequence[Outcome], what: str) -> Check:
    """Every one of `what` was; else the line says what became of the first that was not."""
    lost = [outcome for outcome in found if not outcome.served]
    served = f"{len(found) - len(lost)} of {len(found)} {what} were served"
    return Check(f"{served}; one was not: {lost[0].end}" if lost else served, not lost)


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Of one scene."""

    title: str
    promise: str
    """In one sentence."""
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    checks: tuple[Check, ...]

    @property
    def good(self) -> bool:
        """Everything was as it had to be."""
        return all(check.good for check in self.checks)

    def broken(self, *, quiet: bool = True) -> list[str]:
        """What was not. `quiet`: whether the machine was."""
        return [check.line for check in self.checks if not check.good and (quiet or not check.needs_quiet)]


def lines(finding: Finding) -> Iterator[str]:
    """As a page of Markdown has it."""
    yield f"## {finding.title}"
    yield ""
    yield finding.promise
    yield ""
    yield from _table(finding.header, finding.rows)
    yield ""
    yield from map(_line, finding.checks)
    yield ""


def _line(check: Check) -> str:
    verdict = "ok" if check.good else "BROKEN"
    return f"- {verdict}: {check.line}{' (on a quiet machine)' if check.needs_quiet else ''}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """With columns so wide that it can be read as it is."""
    widths = [max(len(row[at]) for row in (header, *rows)) for at in range(len(header))]
    for row in (header, ["-" * width for width in widths], *rows):
        yield f"| {' | '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))} |"
