"""A scene as SVG. Inks are classes: a page or a file's own style gives them their colours, light or dark."""

from __future__ import annotations

from html import escape
from itertools import pairwise

import msgspec

from sluice_bench.reports.scene import DARK, LIGHT, Area, Line, Point, Rect, Scene, Shape, Text

FONT = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"


def ink_style() -> str:
    """CSS for the classes of all inks: `s-` strokes, `f-` fills."""
    light = "".join(f"--{name}:{colour};" for name, colour in LIGHT.items())
    dark = "".join(f"--{name}:{colour};" for name, colour in DARK.items())
    strokes = "".join(f".s-{name}{{stroke:var(--{name})}}.f-{name}{{fill:var(--{name})}}" for name in LIGHT)
    return (
        f":root{{color-scheme:light dark;{light}}}"
        f"@media (prefers-color-scheme:dark){{:root{{{dark}}}}}"
        f"@media print{{:root{{color-scheme:light;{light}}}}}"
        f"{strokes}svg text{{font-family:{FONT}}}"
        f".halo{{paint-order:stroke;stroke:var(--paper);stroke-width:3px}}"
    )


def svg_element(scene: Scene, identity: str, classes: str = "", tips: bool = True) -> str:
    """For a page that has `ink_style`; `identity` is unique in it."""
    return (
        f'<svg class="{escape(classes)}" viewBox="0 0 {_n(scene.width)} {_n(scene.height)}" role="img" '
        f'aria-labelledby="{identity}-t {identity}-d">'
        f'<title id="{identity}-t">{escape(scene.title)}</title>'
        f'<desc id="{identity}-d">{escape(scene.description)}</desc>'
        f"{''.join(_drawn(shape if tips else _without_tip(shape)) for shape in scene.shapes)}</svg>"
    )


def svg_file(scene: Scene) -> str:
    """A file of its own."""
    body = svg_element(scene, "scene").replace(
        "<svg ",
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_n(scene.width)}" height="{_n(scene.height)}" ',
        1,
    )
    paper = f'<style>{ink_style()}</style><rect width="100%" height="100%" class="f-paper"/>'
    return body.replace("</desc>", "</desc>" + paper, 1) + "\n"


def _without_tip(shape: Shape) -> Shape:
    return msgspec.structs.replace(shape, tip="") if isinstance(shape, Area | Rect) else shape


def _drawn(shape: Shape) -> str:
    match shape:
        case Line():
            return _line(shape)
        case Area():
            inside = f'<path class="f-{shape.ink}"{_opacity(shape.opacity)} d="{_path(shape.points)}Z"'
            return _with_tip(inside, "path", shape.tip)
        case Rect():
            inside = (
                f'<rect class="f-{shape.ink}"{_opacity(shape.opacity)} x="{_n(shape.x)}" y="{_n(shape.y)}" '
                f'width="{_n(shape.width)}" height="{_n(shape.height)}"'
            )
            return _with_tip(inside, "rect", shape.tip)
        case Text():
            return _text(shape)


def _line(line: Line) -> str:
    dash = f' stroke-dasharray="{" ".join(map(_n, line.dash))}"' if line.dash else ""
    return (
        f'<path class="s-{line.ink}" fill="none" stroke-width="{_n(line.width)}"{dash} '
        f'stroke-linejoin="round" d="{_path(line.points)}"/>'
    )


def _text(text: Text) -> str:
    halo = " halo" if text.halo else ""
    bold = ' font-weight="600"' if text.bold else ""
    anchor = "" if text.anchor == "start" else f' text-anchor="{text.anchor}"'
    return (
        f'<text class="f-{text.ink}{halo}" x="{_n(text.x)}" y="{_n(text.y)}" font-size="{_n(text.size)}"'
        f"{anchor}{bold}>{escape(text.text)}</text>"
    )


def _with_tip(element: str, name: str, tip: str) -> str:
    return f"{element}><title>{escape(tip)}</title></{name}>" if tip else f"{element}/>"


def _opacity(opacity: float) -> str:
    return "" if opacity == 1.0 else f' fill-opacity="{_n(opacity)}"'


def _path(points: tuple[Point, ...]) -> str:
    """Level and upright pieces are shorter to write, and steps are made of them."""
    written = [(_n(x), _n(y)) for x, y in points]
    pieces = [f"M{written[0][0]} {written[0][1]}"]
    for (x0, y0), (x, y) in pairwise(written):
        if y == y0:
            pieces.append(f"H{x}" if x != x0 else "")
        else:
            pieces.append(f"V{y}" if x == x0 else f"L{x} {y}")
    return "".join(pieces)


def _n(value: float) -> str:
    """A tenth of a pixel is enough; two digits below one, for opacities."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if abs(value) < 1 else f"{value:.1f}".removesuffix(".0")
