"""An experiment's closed loops as pictures: a figure over the number of users, a line for each variant."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping

from sluice_bench.experiments.measurement import Experiment, LoadFacts, Row
from sluice_bench.experiments.page import rows_of
from sluice_bench.reports.chart import WIDE, Plot, PlotPoint, Series, draw
from sluice_bench.reports.svg import svg_file
from sluice_bench.stats.percentile import percentile_of

_FAR = 8
"""Numbers of users that differ by such a factor stand on a logarithmic axis."""

FIGURES: Mapping[str, tuple[str, Callable[[Row], float | None]]] = {
    "speed": ("output tokens/s", lambda row: row.tokens_per_s),
    "ttft": ("TTFT p50, ms", lambda row: percentile_of(row.ttft_ms, 0.5) if row.ttft_ms else None),
}
"""By the last word of the file's name: what is on the upright axis."""


def plots(experiment: Experiment) -> dict[str, Plot]:
    """By file name; none where there is only one number of users."""
    closed = [load for load in experiment.loads if load.concurrency is not None]
    if len(closed) < 2:
        return {}
    return {
        f"{experiment.name}-{word}.svg": _plot(experiment, closed, label, figure)
        for word, (label, figure) in FIGURES.items()
    }


def drawn(plot: Plot) -> str:
    """As SVG."""
    return svg_file(draw(plot, WIDE))


def _plot(
    experiment: Experiment, loads: list[LoadFacts], label: str, figure: Callable[[Row], float | None]
) -> Plot:
    users = [load.concurrency or 0 for load in loads]
    return Plot(
        title=f"{label}, by users who wait for their answer",
        description=f"{label} of {', '.join(experiment.variants)}; medians of {experiment.repeats} repeats, "
        "bars from the smallest to the largest.",
        x_label="users at a time",
        y_label=label,
        series=tuple(
            Series(name=variant, number=place, points=tuple(_points(experiment, variant, loads, figure)))
            for place, variant in enumerate(experiment.variants)
        ),
        x_log=max(users) >= _FAR * min(users),
    )


def _points(
    experiment: Experiment, variant: str, loads: list[LoadFacts], figure: Callable[[Row], float | None]
) -> list[PlotPoint]:
    points = []
    for load in loads:
        found = [figure(row) for row in rows_of(experiment, variant, load.name)]
        values = [value for value in found if value is not None]
        if values:
            points.append(
                PlotPoint(
                    x=load.concurrency or 0,
                    y=statistics.median(values),
                    y_low=min(values),
                    y_high=max(values),
                    tip=f"{variant}, {load.name}: {statistics.median(values):.4g}",
                )
            )
    return points
