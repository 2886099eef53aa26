"""What a page is made of, before it is HTML: sections with paragraphs, tables and pictures.

Every picture comes with the table of what it shows, for those who read numbers or do not see pictures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import msgspec

from sluice_bench.formatting import number
from sluice_bench.reports.chart import NARROW, WIDE
from sluice_bench.reports.scene import Scene
from sluice_bench.stats.estimate import Estimate

NOTHING = "–"
"""In a cell: there is no such value. What is not known is the word `unknown`."""


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """Cells are text. The first column names the row; the others are numbers mostly."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """Drawn twice: for a page on a desk, and for one on a phone."""

    name: str
    """Of its file, without suffix."""
    wide: Scene
    narrow: Scene
    table: Table
    notes: tuple[str, ...] = ()


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """One heading and what is below it."""

    title: str
    paragraphs: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    pictures: tuple[Picture, ...] = ()
    closing: tuple[str, ...] = ()


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """A report."""

    title: str
    lines: tuple[str, ...]
    """Below the title."""
    warnings: tuple[str, ...]
    """What a reader must know before believing anything."""
    sections: tuple[Section, ...]


def picture(name: str, scene: Callable[[float], Scene], table: Table, notes: Sequence[str] = ()) -> Picture:
    """Both sizes of a scene that is drawn by its width."""
    return Picture(name=name, wide=scene(WIDE), narrow=scene(NARROW), table=table, notes=tuple(notes))


def figure(value: float | None) -> str:
    """A number with three digits or so; `–` when there is none."""
    if value is None:
        return NOTHING
    return f"{value:.3g}" if 0 < abs(value) < 0.1 else number(value)


def known(value: float | None) -> str:
    """The same for what exists but may not have been told."""
    return "unknown" if value is None else figure(value)


def count(value: int | None) -> str:
    """A number of things, exactly."""
    return "unknown" if value is None else f"{value:,}"


def interval(estimate: Estimate | None) -> str:
    """`value (low–high)`, with as many digits as tell the bounds apart; says when there are none."""
    if estimate is None:
        return NOTHING
    if estimate.low is None or estimate.high is None:
        return f"{figure(estimate.value)} (no interval)"
    width = estimate.high - estimate.low
    digits = max(0, min(6, 1 - math.floor(math.log10(width)))) if width > 0 else 2
    return f"{estimate.value:,.{digits}f} ({estimate.low:,.{digits}f}–{estimate.high:,.{digits}f})"


def share(estimate: Estimate) -> str:
    """In percent."""
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.1%}"
    return f"{estimate.value:.1%} ({estimate.low:.1%}–{estimate.high:.1%})"
