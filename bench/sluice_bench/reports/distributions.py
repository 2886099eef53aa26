"""Distributions of TTFT, TPOT and E2E over requests, as cumulative shares: no bins to choose, tails to read.

A line's height is the share of complete requests that took no longer. Of many requests as many points are
drawn as a picture has room for; all percentiles in the tables are of all requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from sluice_bench.reports.chart import Plot, PlotPoint, Series, draw
from sluice_bench.reports.page import Picture, Table, figure, interval, picture
from sluice_bench.reports.run_figures import METRICS, SHARES, Metric, RunFigures

MOST_RUNS = 12
MOST_POINTS = 120


def distribution_pictures(runs: Sequence[RunFigures]) -> tuple[Picture, ...]:
    """One for each metric that a run has; the first `MOST_RUNS` runs are drawn."""
    return tuple(
        _picture(metric, runs)
        for metric in METRICS
        if any(metric.found(run.summary) is not None for run in runs)
    )


def _picture(metric: Metric, runs: Sequence[RunFigures]) -> Picture:
    series = tuple(
        Series(name=run.label, number=run.number, points=cumulative(values), markers=False)
        for run in runs[:MOST_RUNS]
        if (values := run.values_ms(metric))
    )
    plot = Plot(
        title=f"{metric.name}: share of requests that took no longer",
        description=f"Cumulative distribution of {metric.name} in milliseconds, a line per run; its "
        "percentiles are in the table below.",
        x_label=f"{metric.name}, ms",
        y_label="requests",
        series=series,
        key=True,
        x_log=None,
        height=260,
        show_y_as_share=True,
    )
    notes = []
    if len(runs) > MOST_RUNS:
        notes.append(f"The first {MOST_RUNS} of {len(runs)} runs are drawn; the table has all.")
    return picture(f"distribution-{metric.key}", partial(draw, plot), _table(metric, runs), notes)


def cumulative(values: Sequence[float]) -> tuple[PlotPoint, ...]:
    """Corners of the step line, at most about `2 * MOST_POINTS` of them, the extremes among them."""
    ordered, n = sorted(values), len(values)
    ranks = sorted({round(at * (n - 1) / (MOST_POINTS - 1)) for at in range(MOST_POINTS)})
    points, before = [PlotPoint(x=ordered[0], y=0.0)], 0.0
    for rank in ranks:
        points += [PlotPoint(x=ordered[rank], y=before), PlotPoint(x=ordered[rank], y=(rank + 1) / n)]
        before = (rank + 1) / n
    return tuple(points)


def _table(metric: Metric, runs: Sequence[RunFigures]) -> Table:
    rows = []
    for run in runs:
        found = metric.found(run.summary)
        if found is not None:
            tails = (interval(run.percentile(metric, share)) for share in SHARES)
            rows.append((run.label, str(found.count), figure(found.mean), *tails, figure(found.high)))
    return Table(
        caption=f"{metric.name}, ms, with 95 % intervals",
        columns=("run", "requests", "mean", "p50", "p90", "p95", "p99", "largest"),
        rows=tuple(rows),
    )
