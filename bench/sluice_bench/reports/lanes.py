"""A lane per request: when it was due, sent, answered for the first and for the last time.

Of a long run some are drawn, evenly by their order, and the picture says how many of how many. Phases
differ by height as well as by ink: a line until it was sent, a thin bar until the first token, a full one
after.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from sluice_bench import metrics
from sluice_bench.records import RequestRecord
from sluice_bench.reports.axes import Axis, axis_for, tick_texts
from sluice_bench.reports.chart import WIDE
from sluice_bench.reports.page import NOTHING, Picture, Table, picture
from sluice_bench.reports.run_figures import RunFigures
from sluice_bench.reports.scene import Line, Rect, Scene, Shape, Text, fitted

MOST_LANES = 50
_PITCH = 9.0


def lanes_picture(run: RunFigures) -> Picture | None:
    """Of one run; `None` when nothing in it took time."""
    span = metrics.whole_span(run.requests)
    if span is None or span[0] >= span[1]:
        return None
    chosen = sampled(run.requests)
    notes = []
    if len(chosen) < len(run.requests):
        notes.append(f"{len(chosen)} of {len(run.requests):,} requests are drawn, evenly by their order.")
    scene = partial(_scene, run, chosen, span[0], (span[1] - span[0]) * metrics.NS)
    return picture(f"lanes-{run.number + 1}", scene, _table(run, chosen, span[0]), notes)


def sampled(requests: Sequence[RequestRecord]) -> list[RequestRecord]:
    """At most `MOST_LANES` of them, evenly by order, the first among them."""
    count = min(len(requests), MOST_LANES)
    return [requests[at * len(requests) // count] for at in range(count)]


def _scene(
    run: RunFigures, chosen: Sequence[RequestRecord], start_ns: int, seconds: float, width: float
) -> Scene:
    top = 64.0 if width >= WIDE else 98.0
    title = f"{run.label}: requests, one lane each"
    axis = axis_for([0.0, seconds], 44.0, width - 14.0, tight=True, most_ticks=8 if width >= WIDE else 5)
    bottom = top + len(chosen) * _PITCH + 4
    shapes: list[Shape] = [
        Text(x=4, y=16, text=fitted(title, 14, width - 8), size=14, bold=True),
        *_key(width),
        *_grid(axis, top, bottom, width),
    ]
    for place, record in enumerate(chosen):
        shapes += _lane(record, axis, start_ns, top + place * _PITCH + _PITCH / 2, place)
    return Scene(
        width=width,
        height=bottom + 42,
        title=title,
        description="When each request was due, sent, and answered for the first and the last time. The "
        "numbers are in the table below.",
        shapes=tuple(shapes),
    )


def _key(width: float) -> Iterator[Shape]:
    names = ("due, not sent", "sent, waiting for the first token", "first to last token", "failed ✕")
    x, y = 4.0, 38.0
    for kind, name in enumerate(names):
        if width < WIDE and kind in (1, 2, 3):
            x, y = 4.0, y + 15.0
        if kind == 0:
            yield Line(points=((x, y - 4), (x + 24, y - 4)), ink="muted", width=1.5)
        elif kind == 1:
            yield Rect(x=x, y=y - 5.5, width=24, height=3, ink="series2")
        elif kind == 2:
            yield Rect(x=x, y=y - 7, width=24, height=6, ink="series1")
        else:
            yield Rect(x=x, y=y - 5.5, width=24, height=3, ink="alarm")
        yield Text(x=x + 30, y=y, text=name, size=12)
        x += 30 + len(name) * 6.4 + 14


def _grid(axis: Axis, top: float, bottom: float, width: float) -> Iterator[Shape]:
    for tick, text in zip(axis.ticks, tick_texts(axis), strict=True):
        x = axis.at(tick)
        yield Line(points=((x, top), (x, bottom)), ink="grid")
        yield Text(x=x, y=bottom + 16, text=text, ink="muted", anchor="middle")
    yield Text(x=width / 2, y=bottom + 34, text="seconds since the first request was due", anchor="middle")
    yield Text(x=4, y=top - 4, text="request", ink="muted", size=11)


def _lane(record: RequestRecord, axis: Axis, start_ns: int, y: float, place: int) -> Iterator[Shape]:
    def x(stamp: int) -> float:
        return axis.at((stamp - start_ns) * metrics.NS)

    if place % 5 == 0:
        yield Text(x=38, y=y + 4, text=str(record.index), ink="muted", size=10, anchor="end")
    end = record.end_ns if record.end_ns is not None else record.scheduled_ns
    sent = record.dispatched_ns if record.dispatched_ns is not None else end
    first = record.first_token_ns
    done = record.last_token_ns if record.failure is None and record.last_token_ns is not None else end
    yield Line(points=((x(record.scheduled_ns), y), (x(sent), y)), ink="muted", width=1.5)
    waited_until = first if first is not None else done
    ink = "series2" if record.failure is None or first is not None else "alarm"
    yield Rect(
        x=x(sent), y=y - 1.5, width=max(0.5, x(waited_until) - x(sent)), height=3, ink=ink, tip=_tip(record)
    )
    if first is not None:
        ink = "series1" if record.failure is None else "alarm"
        yield Rect(
            x=x(first), y=y - 3, width=max(1.0, x(done) - x(first)), height=6, ink=ink, tip=_tip(record)
        )
    if record.failure is not None:
        yield Text(x=x(done) + 3, y=y + 4, text=f"✕ {record.failure.value}", ink="alarm", size=10)


def _tip(record: RequestRecord) -> str:
    ttft, total = metrics.ttft_user_s(record), metrics.e2e_s(record)
    outcome = "complete" if record.failure is None else record.failure.value
    return f"request {record.index}, {outcome}: TTFT {_ms(ttft)} ms, E2E {_ms(total)} ms"


def _ms(seconds: float | None) -> str:
    return NOTHING if seconds is None else f"{seconds * 1000:,.1f}"


def _table(run: RunFigures, chosen: Sequence[RequestRecord], start_ns: int) -> Table:
    def at(stamp: int | None) -> str:
        return NOTHING if stamp is None else f"{(stamp - start_ns) * metrics.NS:.3f}"

    rows = tuple(
        (
            str(record.index),
            at(record.scheduled_ns),
            at(record.dispatched_ns),
            at(record.first_token_ns),
            at(record.last_token_ns),
            "unknown" if record.output_tokens is None else str(record.output_tokens),
            "complete" if record.failure is None else record.failure.value,
        )
        for record in chosen
    )
    columns = ("request", "due, s", "sent, s", "first token, s", "last token, s", "output tokens", "outcome")
    return Table(caption=f"Requests of {run.label}", columns=columns, rows=rows)
