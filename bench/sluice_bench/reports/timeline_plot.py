"""A run over time: requests in flight, output tokens per second, TTFT, and what the engine said of its load.

All pictures of a run have the same windows, which are as many as can be told apart. When the run ends inside
the last one, it is grey and counts in no highest or lowest rate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import TypeVar

import msgspec

from sluice_bench import metrics
from sluice_bench.engine_load import LoadSample
from sluice_bench.reports.chart import Plot, PlotPoint, Series, draw
from sluice_bench.reports.page import NOTHING, Picture, Table, figure, known, picture
from sluice_bench.reports.run_figures import RunFigures, token_windows
from sluice_bench.reports.scene import Scene, stacked
from sluice_bench.stats.percentile import percentile_of
from sluice_bench.stats.timeline import CountWindow, lowest_rate, mean_levels, peak_rate

Found = TypeVar("Found")

MOST_WINDOWS = 90
_MOST_MARKED = 60
"""So few samples of the engine are shown as such; between them nobody knows."""
_WIDTHS_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """One window of a run."""

    start_s: float
    end_s: float
    in_flight: float
    """Mean over the window."""
    tokens_per_s: float | None
    ttft_p50_ms: float | None
    """Of the requests whose first token came in it; `None` when there is none."""
    partial: bool
    running: float | None
    """By the engine, mean of its samples in this window; `None` when it was not asked or did not say."""
    waiting: float | None
    kv_used_ratio: float | None


def timeline_picture(run: RunFigures) -> Picture | None:
    """Of one run; `None` when it has no length."""
    windows = run_windows(run)
    if not windows:
        return None
    moments = moments_of(run, windows)
    name = f"timeline-{run.number + 1}"
    return picture(name, partial(_scene, run, moments), _table(run, moments), _notes(windows))


def _scene(run: RunFigures, moments: Sequence[Moment], width: float) -> Scene:
    panels = [
        _load_panel(run, moments),
        _panel(moments, "Output tokens/s", [moment.tokens_per_s for moment in moments]),
        _panel(moments, "TTFT, user, p50, ms", [moment.ttft_p50_ms for moment in moments]),
    ]
    if cache := _cache_panel(run, moments):
        panels.append(cache)
    panels[-1] = msgspec.structs.replace(panels[-1], x_label="seconds since the first request was due")
    return stacked(
        [draw(panel, width) for panel in panels],
        f"Timeline of {run.label}",
        "Requests in flight, output tokens per second, TTFT, and what the engine said of its load over the "
        "time of the run. The numbers are in the table below.",
    )


def run_windows(run: RunFigures) -> list[CountWindow]:
    """Output tokens by window, of a width that makes at most `MOST_WINDOWS`."""
    span = metrics.whole_span(run.requests)
    if span is None or span[0] >= span[1]:
        return []
    seconds = (span[1] - span[0]) * metrics.NS
    width_s = next((width for width in _WIDTHS_S if seconds <= width * MOST_WINDOWS), seconds / MOST_WINDOWS)
    return token_windows(run.requests, round(width_s * 1e9))


def moments_of(run: RunFigures, windows: Sequence[CountWindow]) -> list[Moment]:
    """What went on in each window."""
    start_ns, end_ns = windows[0].start_ns, windows[-1].end_ns
    spans = [
        (record.dispatched_ns, record.end_ns or end_ns)
        for record in run.requests
        if record.dispatched_ns is not None
    ]
    levels = mean_levels(spans, [(window.start_ns, window.end_ns) for window in windows])
    waits = _by_window(
        (
            (record.first_token_ns, ttft * 1000)
            for record in run.requests
            if record.first_token_ns is not None and (ttft := metrics.ttft_user_s(record)) is not None
        ),
        windows,
    )
    told = _by_window(((sample.at_ns, sample) for sample in run.run.meta.server.samples), windows)
    return [
        Moment(
            start_s=(window.start_ns - start_ns) * metrics.NS,
            end_s=(window.end_ns - start_ns) * metrics.NS,
            in_flight=level,
            tokens_per_s=window.rate_per_s,
            ttft_p50_ms=percentile_of(found, 0.5) if found else None,
            partial=window.partial,
            running=_mean(sample.running for sample in samples),
            waiting=_mean(sample.waiting for sample in samples),
            kv_used_ratio=_mean(sample.kv_used_ratio for sample in samples),
        )
        for window, level, found, samples in zip(windows, levels, waits, told, strict=True)
    ]


def _by_window(stamped: Iterable[tuple[int, Found]], windows: Sequence[CountWindow]) -> list[list[Found]]:
    """What was found in each window, by (stamp, what); what lies outside is left out."""
    start_ns, end_ns = windows[0].start_ns, windows[-1].end_ns
    width_ns = windows[0].end_ns - start_ns
    found: list[list[Found]] = [[] for _ in windows]
    for stamp, what in stamped:
        if start_ns < stamp <= end_ns:
            found[(stamp - start_ns - 1) // width_ns].append(what)
    return found


def _mean(values: Iterable[float | None]) -> float | None:
    told = [value for value in values if value is not None]
    return math.fsum(told) / len(told) if told else None


def _panel(moments: Sequence[Moment], title: str, values: Sequence[float | None]) -> Plot:
    last = moments[-1]
    reason = "partial window: counts in no highest or lowest rate"
    return Plot(
        title=title,
        description=f"{title} by window",
        x_label="",
        y_label="",
        series=tuple(_pieces(moments, values)),
        x_span=(moments[0].start_s, last.end_s),
        least_left=52,
        height=110,
        shaded_x=((last.start_s, last.end_s, reason),) if last.partial else (),
    )


def _load_panel(run: RunFigures, moments: Sequence[Moment]) -> Plot:
    """Requests in flight as the client had them, and as the engine told them."""
    title = f"{run.label}: requests in flight"
    panel = _panel(moments, title, [moment.in_flight for moment in moments])
    told = _told(
        _sampled(run, moments, "running, by the engine", 1, lambda sample: sample.running),
        _sampled(run, moments, "waiting, by the engine", 2, lambda sample: sample.waiting),
    )
    if not told:
        return panel
    named = [msgspec.structs.replace(series, name="by the client") for series in panel.series]
    return msgspec.structs.replace(panel, series=(*named, *told), key=True)


def _cache_panel(run: RunFigures, moments: Sequence[Moment]) -> Plot | None:
    told = _told(_sampled(run, moments, "", 0, lambda sample: sample.kv_used_ratio))
    if not told:
        return None
    panel = _panel(moments, "KV cache used, by the engine", [None] * len(moments))
    return msgspec.structs.replace(panel, series=told, show_y_as_share=True)


def _told(*series: Series) -> tuple[Series, ...]:
    """Those of which the engine told anything."""
    return tuple(one for one in series if one.points)


def _sampled(
    run: RunFigures,
    moments: Sequence[Moment],
    name: str,
    number: int,
    value: Callable[[LoadSample], float | None],
) -> Series:
    """A gauge of the engine, at the times at which it was asked within the run."""
    span = metrics.whole_span(run.requests)
    start_ns = 0 if span is None else span[0]
    points = tuple(
        PlotPoint(x=at_s, y=found)
        for sample in run.run.meta.server.samples
        if 0 <= (at_s := (sample.at_ns - start_ns) * metrics.NS) <= moments[-1].end_s
        and (found := value(sample)) is not None
    )
    return Series(name=name, number=number, points=points, markers=len(points) <= _MOST_MARKED)


def _pieces(moments: Sequence[Moment], values: Sequence[float | None]) -> Iterator[Series]:
    """The line, broken where there is no value: nothing is known there."""
    entries_of = zip(moments, values, strict=True)
    for measured, group in groupby(entries_of, key=lambda entry: entry[1] is not None):
        if measured:
            entries = list(group)
            points = [PlotPoint(x=moment.start_s, y=value or 0.0) for moment, value in entries]
            points.append(PlotPoint(x=entries[-1][0].end_s, y=points[-1].y))
            yield Series(name="", number=0, points=tuple(points), markers=False, steps=True)


def _notes(windows: Sequence[CountWindow]) -> tuple[str, ...]:
    width_s = (windows[0].end_ns - windows[0].start_ns) * metrics.NS
    peak, lowest = peak_rate(windows), lowest_rate(windows)
    line = f"Windows of {width_s:g} s, the last one {'partial' if windows[-1].partial else 'whole'}."
    if peak is not None:
        line += f" Output tokens/s in a whole window: {figure(lowest)} at least, {figure(peak)} at most."
    if windows[-1].partial:
        line += " The partial one is grey, and neither the least nor the most."
    return (line,)


def _table(run: RunFigures, moments: Sequence[Moment]) -> Table:
    columns = ["seconds", "in flight, mean", "output tokens/s", "TTFT, user, p50, ms"]
    sampled = bool(run.run.meta.server.samples)
    if sampled:
        columns += ["running, by the engine", "waiting, by the engine", "KV cache used"]
    rows = tuple(
        (
            f"{moment.start_s:g}–{moment.end_s:.4g}{' (partial)' if moment.partial else ''}",
            f"{moment.in_flight:.1f}",
            known(moment.tokens_per_s),
            figure(moment.ttft_p50_ms),
            *(_engine_cells(moment) if sampled else ()),
        )
        for moment in moments
    )
    return Table(caption=f"Timeline of {run.label}", columns=tuple(columns), rows=rows)


def _engine_cells(moment: Moment) -> tuple[str, str, str]:
    used = NOTHING if moment.kv_used_ratio is None else f"{moment.kv_used_ratio:.1%}"
    return figure(moment.running), figure(moment.waiting), used
