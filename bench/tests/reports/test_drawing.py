"""Scenes and their two backends; axes; inks that can be told apart."""

from __future__ import annotations

import io
import math
import sys
import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import pytest
from PIL import Image

from sluice_bench.reports.axes import axis_for, nice_step, short, tick_texts
from sluice_bench.reports.chart import NARROW, WIDE, Plot, PlotPoint, Series, draw, spread_apart
from sluice_bench.reports.png import PillowMissing, dashed, png_bytes
from sluice_bench.reports.scene import (
    DARK,
    DASHES,
    LIGHT,
    SERIES,
    Area,
    Line,
    Rect,
    Scene,
    Text,
    fitted,
    marker,
    series_dash,
    series_ink,
    stacked,
    text_width,
)
from sluice_bench.reports.svg import svg_element, svg_file

SCENE = Scene(
    width=100,
    height=50,
    title="a < b",
    description='"quoted" & more',
    shapes=(
        Rect(x=10, y=10, width=20, height=20, ink="series1", tip="<tip>"),
        Line(points=((0, 40), (100, 40), (100, 45)), ink="axis", dash=(4, 2)),
        Area(points=((60, 10), (80, 10), (70, 30)), ink="alarm", opacity=0.5),
        Text(x=50, y=20, text="x < y & z", anchor="middle"),
        marker(2, 90, 20, "series2"),
    ),
)


def test_svg_is_well_formed_and_escaped() -> None:
    root = ElementTree.fromstring(svg_file(SCENE))
    texts = [element.text for element in root.iter() if element.text and element.text.strip()]
    assert {"a < b", '"quoted" & more', "<tip>", "x < y & z"} <= set(texts)
    assert "<title>" not in svg_element(SCENE, "i", tips=False)


def test_svg_draws_the_line_where_it_is() -> None:
    root = ElementTree.fromstring(svg_file(SCENE))
    [path] = [element for element in root.iter() if element.get("stroke-dasharray")]
    assert path.get("d") == "M0 40H100V45"


def test_png_has_the_scene_twice_as_large_with_its_inks() -> None:
    image = Image.open(io.BytesIO(png_bytes(SCENE)))
    assert image.size == (200, 100)
    assert colour_at(image, 40, 40) == LIGHT["series1"]
    assert colour_at(image, 2, 2) == LIGHT["paper"]
    dark = Image.open(io.BytesIO(png_bytes(SCENE, DARK)))
    assert colour_at(dark, 40, 40) == DARK["series1"]


def colour_at(image: Image.Image, x: int, y: int) -> str:
    found = image.getpixel((x, y))
    assert isinstance(found, tuple)
    return "#" + "".join(f"{part:02x}" for part in found)


def test_without_pillow_png_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(PillowMissing, match="pip install"):
        png_bytes(SCENE)


def test_dashes_cover_as_much_as_they_should() -> None:
    strokes = list(dashed(((0, 0), (10, 0), (10, 10)), (4, 2)))
    lengths = [sum(math.dist(a, b) for a, b in pairwise(stroke)) for stroke in strokes]
    assert lengths == pytest.approx([4, 4, 4, 2])  # from 0, 6, 12 and 18 of 20
    assert (10, 0) not in strokes[0] and any((10, 0) in stroke for stroke in strokes)


@pytest.mark.parametrize("palette", [LIGHT, DARK])
def test_inks_stand_out_from_their_paper(palette: dict[str, str]) -> None:
    """WCAG 2.2: 4.5 for text (series' names are written in their ink), 3 for lines; the grid only helps."""
    for ink, colour in palette.items():
        least = {"paper": 1.0, "grid": 1.0, "axis": 3.0, "band": 3.0}.get(ink, 4.5)
        assert contrast(colour, palette["paper"]) >= least, ink


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_colour_is_never_the_only_sign() -> None:
    looks = [(series_ink(number), series_dash(number)) for number in range(SERIES * len(DASHES))]
    assert len(set(looks)) == len(looks)
    for number in range(20):
        assert series_dash(number) != series_dash(number + 1)
        shapes = [marker(kind, 0, 0, "axis") for kind in (number, number + 1)]
        assert shapes[0].points != shapes[1].points


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([0.0, 97.0], (0, 20, 40, 60, 80, 100)),
        ([0.0, 0.31], (0, 0.1, 0.2, 0.3, 0.4)),
        ([0.0, 1.0], (0, 0.2, 0.4, 0.6, 0.8, 1.0)),
        ([-3.0, 4.0], (-4, -2, 0, 2, 4)),
        ([], (0, 0.2, 0.4, 0.6, 0.8, 1.0)),
        ([5.0], (0, 1, 2, 3, 4, 5)),
    ],
)
def test_ticks_are_round_and_enclose_the_values(values: list[float], ticks: tuple[float, ...]) -> None:
    axis = axis_for(values, 0, 100)
    assert axis.ticks == pytest.approx(ticks)
    assert (axis.at(axis.low), axis.at(axis.high)) == (0, 100)


def test_values_that_spread_far_get_a_logarithmic_axis() -> None:
    axis = axis_for([12.0, 950.0], 0, 100)
    assert axis.log and axis.ticks == (10, 30, 100, 300, 1000)
    assert axis.low <= 12 and axis.high >= 950
    assert axis.at(math.sqrt(axis.low * axis.high)) == pytest.approx(50)
    assert not axis_for([12.0, 950.0], 0, 100, from_zero=True).log
    assert not axis_for([0.0, 950.0], 0, 100, log=True).log  # a zero has no logarithm


def test_a_tight_axis_ends_with_its_values() -> None:
    axis = axis_for([0.0, 81.3], 0, 100, tight=True)
    assert (axis.high, max(axis.ticks)) == (81.3, 80)


def test_texts_of_ticks_have_as_many_digits_as_they_need() -> None:
    assert tick_texts(axis_for([0.0, 0.31], 0, 1)) == ["0.0", "0.1", "0.2", "0.3", "0.4"]
    assert [short(value) for value in (5000.0, 20_000.0, 1.5e6, 0.05)] == ["5000", "20k", "1.5M", "0.05"]
    assert nice_step(0.0) == 1.0 and nice_step(2.1) == 5.0


def test_names_are_kept_apart_and_inside() -> None:
    assert spread_apart([10, 40, 80], 15, 0, 100) == [10, 40, 80]
    places = spread_apart([10, 90, 95, 99], 15, 0, 100)
    assert places == sorted(places) and places[-1] <= 100
    assert all(b - a >= 15 for a, b in pairwise(places))


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("key", [True, False])
def test_everything_that_is_drawn_is_inside_the_picture(width: float, key: bool) -> None:
    series = tuple(
        Series(
            name=f"a name that is rather long for a small screen, number {number}",
            number=number,
            points=tuple(
                PlotPoint(x=x, y=x * 1000.0 * (number + 1), y_low=x, y_high=x * 9_000.0) for x in range(1, 6)
            ),
        )
        for number in range(5)
    )
    plot = Plot(
        title="t" * 120, description="d", x_label="x" * 120, y_label="y" * 120, series=series, key=key
    )
    scene = draw(plot, width)
    for shape in scene.shapes:
        for x, y in corners(shape):
            assert -0.5 <= x <= scene.width + 0.5 and -0.5 <= y <= scene.height + 0.5, shape


def corners(shape: Line | Area | Rect | Text) -> list[tuple[float, float]]:
    if isinstance(shape, Line | Area):
        return list(shape.points)
    if isinstance(shape, Rect):
        return [(shape.x, shape.y), (shape.x + shape.width, shape.y + shape.height)]
    length = text_width(shape.text, shape.size)
    left = shape.x - {"start": 0.0, "middle": length / 2, "end": length}[shape.anchor]
    return [(left, shape.y), (left + length, shape.y - shape.size)]


def test_cut_text_fits_and_says_that_it_is_cut() -> None:
    cut = fitted("a rather long name", 12, 60)
    assert text_width(cut, 12) <= 60 and cut.endswith("…")
    assert fitted("short", 12, 60) == "short"


def test_stacked_scenes_do_not_overlap() -> None:
    both = stacked([SCENE, SCENE], "t", "d", gap=10)
    assert both.height == 110
    assert [shape.y for shape in both.shapes if isinstance(shape, Rect)] == [10, 70]
