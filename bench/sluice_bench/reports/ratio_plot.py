"""A against B: each metric's change with its interval, around no change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import msgspec

from sluice_bench.reports.axes import Axis, axis_for, tick_texts
from sluice_bench.reports.chart import WIDE
from sluice_bench.reports.page import Section, Table, interval, picture
from sluice_bench.reports.scene import Line, Scene, Shape, Text, fitted, marker
from sluice_bench.stats.estimate import Comparison, Estimate

_ROW = 46.0


class AbFound(msgspec.Struct, frozen=True, kw_only=True):
    """What `sluice-bench ab --output` wrote, as far as a report needs it."""

    sides: tuple[str, ...]
    """Who A and B are, in words."""
    comparisons: tuple[Comparison, ...]


class BadAbFile(Exception):
    """The message says what is wrong with it."""


class _Side(msgspec.Struct):
    url: str
    model: str
    headers: tuple[str, ...] = ()


class _Run(msgspec.Struct):
    comparisons: tuple[Comparison, ...]


class _Ab(msgspec.Struct):
    run: _Run
    a: _Side
    b: _Side


def read_ab(path: Path) -> AbFound:
    """Raises `BadAbFile`, `OSError`."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=_Ab)
    except msgspec.DecodeError as error:
        raise BadAbFile(f"{path} is not what `ab --output` writes: {error}") from error
    if not found.run.comparisons:
        raise BadAbFile(f"{path} compares nothing; too few of its blocks could be used")
    sides = tuple(
        f"{letter}: {', '.join((f'{side.model} at {side.url}', *side.headers))}."
        for letter, side in (("A", found.a), ("B", found.b))
    )
    return AbFound(sides=sides, comparisons=found.run.comparisons)


def comparison_section(found: AbFound, number: int) -> Section:
    """What could have been seen stands before what was."""
    comparisons = found.comparisons
    return Section(
        title="A against B",
        paragraphs=(
            "B over A, measured in interleaved blocks; the interval belongs to the test that decides. The "
            "minimum detectable effect is what so many blocks of such noise would have shown with a "
            "probability of 95 %: no difference shown means none much larger than that.",
            *found.sides,
        ),
        pictures=(picture(f"a-against-b-{number}", partial(_scene, comparisons), _table(comparisons)),),
        closing=tuple(sentence(comparison) for comparison in comparisons),
    )


def sentence(comparison: Comparison) -> str:
    """The verdict in words, after what could have been seen."""
    verdict = {
        "faster": "B is faster",
        "slower": "B is slower",
        "no difference shown": "no difference is shown",
    }[comparison.verdict]
    return (
        f"{comparison.metric}: {comparison.blocks} blocks could show {comparison.mde:.1%}; {verdict} "
        f"(B over A {_change(comparison.ratio)}, p = {comparison.p_value:.3g})."
    )


def _change(ratio: Estimate) -> str:
    if ratio.low is None or ratio.high is None:
        return f"{ratio.value - 1:+.1%}"
    return f"{ratio.value - 1:+.1%}, {ratio.low - 1:+.1%} to {ratio.high - 1:+.1%}"


def _table(comparisons: Sequence[Comparison]) -> Table:
    rows = tuple(
        (
            comparison.metric,
            interval(comparison.a),
            interval(comparison.b),
            _change(comparison.ratio),
            f"{comparison.mde:.1%}",
            str(comparison.blocks),
            f"{comparison.p_value:.3g}",
            comparison.verdict,
        )
        for comparison in comparisons
    )
    columns = ("metric", "A", "B", "B over A", "could show", "blocks", "p", "verdict")
    return Table(caption="A against B", columns=columns, rows=rows)


def _scene(comparisons: Sequence[Comparison], width: float) -> Scene:
    ends = [
        (value - 1) * 100
        for found in comparisons
        for value in (found.ratio.value, found.ratio.low, found.ratio.high, 1 + found.mde, 1 - found.mde)
        if value is not None
    ]
    axis = axis_for([0.0, *ends], 16.0, width - 16.0, log=False, most_ticks=9 if width >= WIDE else 5)
    top, bottom = 34.0, 34.0 + _ROW * len(comparisons)
    shapes: list[Shape] = [
        Text(x=4, y=16, text="Change from A to B, %", size=14, bold=True),
        *_ratio_grid(axis, top, bottom, width),
    ]
    for place, comparison in enumerate(comparisons):
        shapes += _ratio_row(comparison, axis, top + place * _ROW, width)
    return Scene(
        width=width,
        height=bottom + 40,
        title="Change from A to B",
        description="For each metric the relative change with its interval, around zero. The numbers are in "
        "the table below.",
        shapes=tuple(shapes),
    )


def _ratio_grid(axis: Axis, top: float, bottom: float, width: float) -> Iterator[Shape]:
    for tick, text in zip(axis.ticks, tick_texts(axis), strict=True):
        x = axis.at(tick)
        yield Line(points=((x, top), (x, bottom)), ink="axis" if tick == 0 else "grid")
        signed = text if tick <= 0 else f"+{text}"
        yield Text(x=x, y=bottom + 16, text=signed, ink="muted", anchor="middle")
    words = "B over A, %; grey: what could not have been told from none"
    yield Text(x=width / 2, y=bottom + 33, text=fitted(words, 12, width - 8), anchor="middle")


def _ratio_row(comparison: Comparison, axis: Axis, y: float, width: float) -> Iterator[Shape]:
    def x(ratio: float) -> float:
        return axis.at((ratio - 1) * 100)

    ratio, middle = comparison.ratio, y + 32.0
    words = f"{comparison.metric}: {comparison.verdict}"
    ink = {"faster": "series3", "slower": "alarm", "no difference shown": "muted"}[comparison.verdict]
    yield Line(points=((x(1 - comparison.mde), middle), (x(1 + comparison.mde), middle)), ink="grid", width=9)
    if ratio.low is not None and ratio.high is not None:
        yield Line(points=((x(ratio.low), middle), (x(ratio.high), middle)), ink=ink, width=2)
        for end in (ratio.low, ratio.high):
            yield Line(points=((x(end), middle - 5), (x(end), middle + 5)), ink=ink, width=2)
    kind = {"faster": 3, "slower": 1, "no difference shown": 0}[comparison.verdict]
    yield marker(kind, x(ratio.value), middle, ink, tip=sentence(comparison), radius=5)
    yield Text(x=8, y=y + 17, text=fitted(words, 12, width - 16), size=12, halo=True)
