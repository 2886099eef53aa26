"""A scene as PNG, with Pillow, which is optional: `pip install 'sluice-bench[png]'`.

Drawn four times as large as it will be and made smaller by half, so that lines have no steps and the picture
is sharp on a dense display.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from itertools import pairwise
from math import hypot
from typing import TYPE_CHECKING

from sluice_bench.reports.scene import LIGHT, Area, Line, Point, Rect, Scene, Text

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont

_DRAWN = 4
_KEPT = 2
_FACES = ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf")


class PillowMissing(Exception):
    """The message says how to get it."""


def png_bytes(scene: Scene, inks: Mapping[str, str] = LIGHT) -> bytes:
    """The file's content. Raises `PillowMissing`."""
    try:
        from PIL import Image
        from PIL.ImageDraw import Draw
    except ImportError as error:
        raise PillowMissing("PNG files need Pillow: pip install 'sluice-bench[png]'") from error
    size = (round(scene.width * _DRAWN), round(scene.height * _DRAWN))
    image = Image.new("RGB", size, inks["paper"])
    canvas = _Canvas(Draw(image, "RGBA"), inks)
    for shape in scene.shapes:
        match shape:
            case Line():
                canvas.line(shape)
            case Area():
                canvas.area(shape)
            case Rect():
                canvas.rect(shape)
            case Text():
                canvas.text(shape)
    kept = image.resize((round(scene.width * _KEPT), round(scene.height * _KEPT)), Image.Resampling.BOX)
    stream = io.BytesIO()
    kept.save(stream, "PNG", optimize=True)
    return stream.getvalue()


class _Canvas:
    """Pillow's, in the scene's coordinates."""

    def __init__(self, draw: ImageDraw, inks: Mapping[str, str]) -> None:
        self._draw, self._inks = draw, inks
        self._fonts: dict[tuple[float, bool], FreeTypeFont | ImageFont] = {}

    def line(self, line: Line) -> None:
        width = max(1, round(line.width * _DRAWN))
        for points in dashed(line.points, line.dash) if line.dash else [line.points]:
            self._draw.line(_scaled(points), fill=self._inks[line.ink], width=width, joint="curve")

    def area(self, area: Area) -> None:
        self._draw.polygon(_scaled(area.points), fill=self._colour(area.ink, area.opacity))

    def rect(self, rect: Rect) -> None:
        left, top = rect.x * _DRAWN, rect.y * _DRAWN
        right = max(left, (rect.x + rect.width) * _DRAWN - 1)
        bottom = max(top, (rect.y + rect.height) * _DRAWN - 1)
        self._draw.rectangle((left, top, right, bottom), fill=self._colour(rect.ink, rect.opacity))

    def text(self, text: Text) -> None:
        font = self._font(text.size, text.bold)
        length = self._draw.textlength(text.text, font=font)
        back = {"start": 0.0, "middle": length / 2, "end": length}[text.anchor]
        self._draw.text(
            (text.x * _DRAWN - back, text.y * _DRAWN),
            text.text,
            font=font,
            fill=self._inks[text.ink],
            anchor="ls",
            stroke_width=round(1.5 * _DRAWN) if text.halo else 0,
            stroke_fill=self._inks["paper"],
        )

    def _font(self, size: float, bold: bool) -> FreeTypeFont | ImageFont:
        from PIL.ImageFont import load_default, truetype

        if (size, bold) not in self._fonts:
            try:
                font: FreeTypeFont | ImageFont = truetype(_FACES[bold], size * _DRAWN)
            except OSError:
                font = load_default(size * _DRAWN)
            self._fonts[size, bold] = font
        return self._fonts[size, bold]

    def _colour(self, ink: str, opacity: float) -> str:
        return self._inks[ink] + f"{round(opacity * 255):02x}"


def _scaled(points: tuple[Point, ...]) -> list[tuple[float, float]]:
    return [(x * _DRAWN, y * _DRAWN) for x, y in points]


def dashed(points: tuple[Point, ...], dash: tuple[float, ...]) -> Iterator[tuple[Point, ...]]:
    """The strokes of a dashed line; Pillow draws whole ones only."""
    at, left, stroke = 0, dash[0], [points[0]]
    for (x0, y0), (x1, y1) in pairwise(points):
        length, done = hypot(x1 - x0, y1 - y0), 0.0
        while length - done > left:
            done += left
            here = (x0 + (x1 - x0) * done / length, y0 + (y1 - y0) * done / length)
            if at % 2 == 0:
                yield (*stroke, here)
            at, stroke = at + 1, [here]
            left = dash[at % len(dash)]
        left -= length - done
        if at % 2 == 0:
            stroke.append((x1, y1))
    if at % 2 == 0 and len(stroke) > 1:
        yield tuple(stroke)
