"""A picture as a list of shapes, and the inks that it may use. Backends draw it; it knows none of them.

Coordinates are pixels from the top left. Colours have names, so that one scene can be drawn light and dark.
Series differ by colour, by dash and by marker: whoever sees no colours can still tell them apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

Point = tuple[float, float]
Anchor = Literal["start", "middle", "end"]

SERIES = 8
"""Inks of series; after these they begin again, with another dash."""

LIGHT = {
    "paper": "#ffffff",
    "text": "#1b1f24",
    "muted": "#57606a",
    "axis": "#6e7781",
    "grid": "#d8dee4",
    "alarm": "#b3261e",
    "band": "#57606a",
    "series1": "#0058a3",
    "series2": "#b34700",
    "series3": "#00734d",
    "series4": "#8f3a84",
    "series5": "#7a6200",
    "series6": "#0b7a8a",
    "series7": "#b3261e",
    "series8": "#4b4f58",
}
DARK = {
    "paper": "#0f1419",
    "text": "#e6edf3",
    "muted": "#a0abb6",
    "axis": "#8b949e",
    "grid": "#2b333c",
    "alarm": "#ff8a80",
    "band": "#a0abb6",
    "series1": "#6cb6ff",
    "series2": "#ffa657",
    "series3": "#56d39b",
    "series4": "#e3a0d8",
    "series5": "#e3c35a",
    "series6": "#5fd0dd",
    "series7": "#ff8a80",
    "series8": "#b6bec8",
}
"""Both are tested: text has a contrast of 4.5 to the paper at least, lines of 3 (WCAG 2.2)."""

DASHES: tuple[tuple[float, ...], ...] = ((), (7, 4), (2, 3), (9, 3, 2, 3))
MARKERS = ("circle", "square", "diamond", "triangle")


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """Straight pieces from point to point."""

    points: tuple[Point, ...]
    ink: str
    width: float = 1.0
    dash: tuple[float, ...] = ()


class Area(msgspec.Struct, frozen=True, kw_only=True):
    """A filled polygon."""

    points: tuple[Point, ...]
    ink: str
    opacity: float = 1.0
    tip: str = ""
    """Shown by a browser that points at it."""


class Rect(msgspec.Struct, frozen=True, kw_only=True):
    """A filled rectangle."""

    x: float
    y: float
    width: float
    height: float
    ink: str
    opacity: float = 1.0
    tip: str = ""


class Text(msgspec.Struct, frozen=True, kw_only=True):
    """One line of text; `y` is its baseline."""

    x: float
    y: float
    text: str
    ink: str = "text"
    size: float = 12.0
    anchor: Anchor = "start"
    bold: bool = False
    halo: bool = False
    """With an edge of paper, to be read over lines."""


Shape = Line | Area | Rect | Text


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """A picture. `title` and `description` are for those who do not see it."""

    width: float
    height: float
    title: str
    description: str
    shapes: tuple[Shape, ...]


def stacked(scenes: Sequence[Scene], title: str, description: str, gap: float = 8.0) -> Scene:
    """One below the other, as wide as the first."""
    shapes: list[Shape] = []
    y = 0.0
    for scene in scenes:
        shapes += [_lowered(shape, y) for shape in scene.shapes]
        y += scene.height + gap
    width, height = scenes[0].width, y - gap
    return Scene(width=width, height=height, title=title, description=description, shapes=tuple(shapes))


def _lowered(shape: Shape, by: float) -> Shape:
    if isinstance(shape, Line | Area):
        return msgspec.structs.replace(shape, points=tuple((x, y + by) for x, y in shape.points))
    return msgspec.structs.replace(shape, y=shape.y + by)


def series_ink(number: int) -> str:
    """Of the series so numbered, from 0."""
    return f"series{number % SERIES + 1}"


def series_dash(number: int) -> tuple[float, ...]:
    """Neighbours differ; a colour that returns has another one."""
    return DASHES[(number + number // SERIES) % len(DASHES)]


def text_width(text: str, size: float) -> float:
    """About, in a plain sans-serif face: enough to keep labels apart."""
    return sum(0.34 if letter in "iljtf.,:;|'!() " else 0.58 for letter in text) * size


def fitted(text: str, size: float, width: float) -> str:
    """Cut with an ellipsis so that it is no wider than that."""
    if text_width(text, size) <= width:
        return text
    while text and text_width(text + "…", size) > width:
        text = text[:-1]
    return text.rstrip() + "…"


def marker(kind: int, x: float, y: float, ink: str, tip: str = "", radius: float = 4.0) -> Area:
    """A small shape around a point."""
    r = radius
    shapes: dict[str, tuple[Point, ...]] = {
        "circle": tuple((x + r * dx, y + r * dy) for dx, dy in _CIRCLE),
        "square": ((x - r, y - r), (x + r, y - r), (x + r, y + r), (x - r, y + r)),
        "diamond": ((x, y - 1.3 * r), (x + 1.3 * r, y), (x, y + 1.3 * r), (x - 1.3 * r, y)),
        "triangle": ((x, y - 1.2 * r), (x + 1.2 * r, y + r), (x - 1.2 * r, y + r)),
    }
    return Area(points=shapes[MARKERS[kind % len(MARKERS)]], ink=ink, tip=tip)


_CIRCLE = (
    (1.0, 0.0), (0.866, 0.5), (0.5, 0.866), (0.0, 1.0), (-0.5, 0.866), (-0.866, 0.5),
    (-1.0, 0.0), (-0.866, -0.5), (-0.5, -0.866), (0.0, -1.0), (0.5, -0.866), (0.866, -0.5),
)  # fmt: skip
