"""A chart of series over two axes, as a scene: grid, ticks, error bars, and names beside the lines.

Where there is room, a series' name stands at its right end; on a narrow picture, and where lines end in one
place, names are in a key above. It decides on layout only: what is drawn was computed elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from sluice_bench.reports.axes import Axis, axis_for, tick_texts
from sluice_bench.reports.scene import (
    Line,
    Point,
    Rect,
    Scene,
    Shape,
    Text,
    fitted,
    marker,
    series_dash,
    series_ink,
    text_width,
)

WIDE, NARROW = 720, 360
"""Pixels: of a page on a desk, and on a phone."""

_SIZE = 12.0
_LINE = 17.0
_MOST_NAME_SHARE = 0.3
"""Of a wide picture's width, for names at the right."""


class PlotPoint(msgspec.Struct, frozen=True, kw_only=True):
    """A value with what is known of its uncertainty; a bound of `None` draws no bar on that side."""

    x: float
    y: float
    x_low: float | None = None
    x_high: float | None = None
    y_low: float | None = None
    y_high: float | None = None
    label: str = ""
    tip: str = ""


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """Points of one name. `number` chooses ink, dash and marker."""

    name: str
    number: int
    points: tuple[PlotPoint, ...]
    line: bool = True
    markers: bool = True
    steps: bool = False
    """Each value holds until the next x."""


class Plot(msgspec.Struct, frozen=True, kw_only=True):
    """What to draw. Labels name the quantity and its unit."""

    title: str
    description: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    height: float = 300.0
    key: bool = False
    """Names above instead of at the right end."""
    x_log: bool | None = False
    y_log: bool | None = False
    x_from_zero: bool = False
    x_span: tuple[float, float] | None = None
    """Where the axis begins and ends, instead of where the values do."""
    least_left: float = 0.0
    """Room for the texts of the y axis, so that pictures below each other are aligned."""
    y_from_zero: bool = True
    limits: tuple[tuple[float, str], ...] = ()
    """Horizontal lines with their names."""
    shaded_x: tuple[tuple[float, float, str], ...] = ()
    """Stretches of x that do not count, with the reason."""
    show_y_as_share: bool = False


def draw(plot: Plot, width: float) -> Scene:
    """The chart, so wide."""
    named = [series for series in plot.series if series.name]
    key = (plot.key or width < WIDE) and len(named) > 1
    key_shapes, key_height = _key(named, width) if key else ([], 0.0)
    top = 34.0 + (16.0 if plot.y_label else 0.0) + key_height
    right = 16.0 if key or len(named) < 2 else _room_for_names(named, width)
    x_axis, y_axis = _axes(plot, width, top, right)
    shapes: list[Shape] = [
        Text(x=4, y=16, text=fitted(plot.title, 14, width - 8), size=14, bold=True),
        *key_shapes,
        *_frame(plot, x_axis, y_axis, width),
        *_shades(plot, x_axis, y_axis),
        *_limits(plot, x_axis, y_axis),
    ]
    for series in plot.series:
        shapes += _series(series, x_axis, y_axis)
    if not key and len(named) > 1:
        shapes += _end_names(named, x_axis, y_axis, right)
    height = top + plot.height + (40.0 if plot.x_label else 24.0)
    return Scene(
        width=width, height=height, title=plot.title, description=plot.description, shapes=tuple(shapes)
    )


def _axes(plot: Plot, width: float, top: float, right: float) -> tuple[Axis, Axis]:
    ys = [value for point in _points(plot) for value in (point.y, point.y_low, point.y_high)]
    xs = [value for point in _points(plot) for value in (point.x, point.x_low, point.x_high)]
    y_axis = axis_for(
        [value for value in ys if value is not None] + [value for value, _ in plot.limits],
        top + plot.height,
        top,
        from_zero=plot.y_from_zero,
        log=plot.y_log,
    )
    texts = max(text_width(text, _SIZE) for text in _y_texts(plot, y_axis))
    left = max(plot.least_left, 16.0 + texts)
    x_axis = axis_for(
        plot.x_span or [value for value in xs if value is not None],
        left,
        width - right,
        from_zero=plot.x_from_zero,
        tight=plot.x_span is not None,
        log=plot.x_log,
        most_ticks=8 if width >= WIDE else 5,
    )
    return x_axis, y_axis


def _points(plot: Plot) -> Iterator[PlotPoint]:
    for series in plot.series:
        yield from series.points


def _y_texts(plot: Plot, axis: Axis) -> list[str]:
    if plot.show_y_as_share:
        return [f"{tick:.0%}" for tick in axis.ticks]
    return tick_texts(axis)


def _frame(plot: Plot, x_axis: Axis, y_axis: Axis, width: float) -> list[Shape]:
    """Grid, ticks and the names of the axes."""
    shapes: list[Shape] = []
    for tick, text in zip(y_axis.ticks, _y_texts(plot, y_axis), strict=True):
        y = y_axis.at(tick)
        shapes.append(Line(points=((x_axis.start, y), (x_axis.end, y)), ink="grid"))
        shapes.append(Text(x=x_axis.start - 6, y=y + 4, text=text, ink="muted", size=_SIZE, anchor="end"))
    bottom, taken = y_axis.start, -1e9
    for tick, text in zip(x_axis.ticks, tick_texts(x_axis), strict=True):
        x, half = x_axis.at(tick), text_width(text, _SIZE) / 2
        shapes.append(Line(points=((x, bottom), (x, bottom + 4)), ink="axis"))
        if x - half > taken + 4:
            x = min(x, width - 4 - half)
            shapes.append(Text(x=x, y=bottom + 17, text=text, ink="muted", size=_SIZE, anchor="middle"))
            taken = x + half
    shapes.append(Line(points=((x_axis.start, bottom), (x_axis.end, bottom)), ink="axis"))
    return shapes + _axis_names(plot, x_axis, y_axis, width)


def _axis_names(plot: Plot, x_axis: Axis, y_axis: Axis, width: float) -> list[Shape]:
    shapes: list[Shape] = []
    if plot.x_label:
        middle = (x_axis.start + x_axis.end) / 2
        room = 2 * min(middle, width - middle)
        name = fitted(plot.x_label + (", logarithmic" if x_axis.log else ""), _SIZE, room)
        shapes.append(Text(x=middle, y=y_axis.start + 34, text=name, size=_SIZE, anchor="middle"))
    if plot.y_label:
        name = plot.y_label + (", logarithmic" if y_axis.log else "")
        shapes.append(Text(x=4, y=y_axis.end - 14, text=fitted(name, _SIZE, width - 8), size=_SIZE))
    return shapes


def _room_for_names(named: Sequence[Series], width: float) -> float:
    longest = max(text_width(series.name, _SIZE) for series in named)
    return min(width * _MOST_NAME_SHARE, longest + 24.0)


def _limits(plot: Plot, x_axis: Axis, y_axis: Axis) -> list[Shape]:
    shapes: list[Shape] = []
    for value, name in plot.limits:
        y = y_axis.at(value)
        shapes.append(Line(points=((x_axis.start, y), (x_axis.end, y)), ink="alarm", width=1.5, dash=(5, 3)))
        shapes.append(Text(x=x_axis.start + 6, y=y - 5, text=name, ink="alarm", size=_SIZE, halo=True))
    return shapes


def _shades(plot: Plot, x_axis: Axis, y_axis: Axis) -> list[Shape]:
    return [
        Rect(
            x=x_axis.at(low),
            y=y_axis.end,
            width=max(1.0, x_axis.at(high) - x_axis.at(low)),
            height=y_axis.start - y_axis.end,
            ink="band",
            opacity=0.25,
            tip=reason,
        )
        for low, high, reason in plot.shaded_x
    ]


def _series(series: Series, x_axis: Axis, y_axis: Axis) -> Iterator[Shape]:
    ink = series_ink(series.number)
    at = [(x_axis.at(point.x), y_axis.at(point.y)) for point in series.points]
    if series.line and len(at) > 1:
        points = _stepped(at) if series.steps else at
        yield Line(points=tuple(points), ink=ink, width=2.0, dash=series_dash(series.number))
    for point, (x, y) in zip(series.points, at, strict=True):
        yield from _bars(point, x, y, x_axis, y_axis, ink)
        if series.markers:
            yield marker(series.number, x, y, ink, point.tip)
        if point.label:
            yield Text(x=x + 8, y=y + 15, text=point.label, ink="muted", size=11, halo=True)


def _bars(point: PlotPoint, x: float, y: float, x_axis: Axis, y_axis: Axis, ink: str) -> Iterator[Shape]:
    """Error bars with caps."""
    if point.y_low is not None and point.y_high is not None:
        low, high = y_axis.at(point.y_low), y_axis.at(point.y_high)
        yield Line(points=((x, low), (x, high)), ink=ink, width=1.2)
        for end in (low, high):
            yield Line(points=((x - 4, end), (x + 4, end)), ink=ink, width=1.2)
    if point.x_low is not None and point.x_high is not None:
        low, high = x_axis.at(point.x_low), x_axis.at(point.x_high)
        yield Line(points=((low, y), (high, y)), ink=ink, width=1.2)
        for end in (low, high):
            yield Line(points=((end, y - 4), (end, y + 4)), ink=ink, width=1.2)


def _stepped(at: Sequence[Point]) -> list[Point]:
    points = [at[0]]
    for x, y in at[1:]:
        points += [(x, points[-1][1]), (x, y)]
    return points


def _end_names(named: Sequence[Series], x_axis: Axis, y_axis: Axis, room: float) -> list[Shape]:
    """At the right, each as near to its line's end as the others let it."""
    ends = sorted(
        ((y_axis.at(series.points[-1].y), series) for series in named if series.points),
        key=lambda entry: entry[0],
    )
    shapes: list[Shape] = []
    places = spread_apart([y for y, _ in ends], _LINE, y_axis.end, y_axis.start)
    for (y, series), place in zip(ends, places, strict=True):
        x = x_axis.at(series.points[-1].x)
        shapes.append(Line(points=((x + 6, y), (x_axis.end + 8, place)), ink="grid", width=1.0))
        name = fitted(series.name, _SIZE, room - 16)
        shapes.append(
            Text(x=x_axis.end + 11, y=place + 4, text=name, ink=series_ink(series.number), size=_SIZE)
        )
    return shapes


def spread_apart(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Ascending positions, at least `gap` apart, near those wanted (ascending), within bounds if they fit."""
    places: list[float] = []
    for place in wanted:
        places.append(max(place, places[-1] + gap) if places else max(place, low))
    ceiling = high
    for at in range(len(places) - 1, -1, -1):
        places[at] = min(places[at], ceiling)
        ceiling = places[at] - gap
    return places


def _key(named: Sequence[Series], width: float) -> tuple[list[Shape], float]:
    """Samples with names, in as many rows as they take; and the rows' height."""
    shapes: list[Shape] = []
    x, y = 4.0, 36.0
    for series in named:
        name = fitted(series.name, _SIZE, width - 48)
        needed = 34 + text_width(name, _SIZE) + 16
        if x > 4 and x + needed > width:
            x, y = 4.0, y + _LINE
        ink = series_ink(series.number)
        if series.line:
            dash = series_dash(series.number)
            shapes.append(Line(points=((x, y - 4), (x + 28, y - 4)), ink=ink, width=2, dash=dash))
        if series.markers:
            shapes.append(marker(series.number, x + 14, y - 4, ink))
        shapes.append(Text(x=x + 34, y=y, text=name, ink=ink, size=_SIZE))
        x += needed
    return shapes, y - 36.0 + _LINE + 4
