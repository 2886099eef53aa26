"""Latency and throughput as the load grows: runs that differ in nothing else, joined by lines.

Open and closed loops are never in one picture: a rate and a number of users are not the same axis, and what
they show is not the same thing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from sluice_bench.reports.chart import Plot, PlotPoint, Series, draw
from sluice_bench.reports.page import Picture, Table, interval, picture
from sluice_bench.reports.run_figures import TPOT, TTFT, RunFigures, load_text
from sluice_bench.stats.estimate import Estimate

_X_LABELS = {"open": "requests per second", "closed": "users at a time"}

Measure = Callable[[RunFigures], Estimate | None]


def curve_pictures(runs: Sequence[RunFigures]) -> tuple[Picture, ...]:
    """For each kind of loop that has at least two loads."""
    return tuple(_pictures(runs))


def _pictures(runs: Sequence[RunFigures]) -> Iterator[Picture]:
    for loop, x_label in _X_LABELS.items():
        chosen = [run for run in runs if run.run.meta.load.loop == loop and run.load is not None]
        if len({run.load for run in chosen}) < 2:
            continue
        yield _by_load(f"load-ttft-{loop}", "TTFT by load", "TTFT, user, p95, ms", x_label, chosen, ttft)
        yield _by_load(f"load-tpot-{loop}", "TPOT by load", "TPOT, p95, ms", x_label, chosen, tpot)
        yield _by_load(
            f"load-throughput-{loop}", "Throughput by load", "output tokens/s", x_label, chosen, throughput
        )
        yield _against_each_other(f"latency-throughput-{loop}", chosen)


def ttft(run: RunFigures) -> Estimate | None:
    """p95, which few requests can give."""
    return run.percentile(TTFT, 0.95)


def tpot(run: RunFigures) -> Estimate | None:
    """p95."""
    return run.percentile(TPOT, 0.95)


def throughput(run: RunFigures) -> Estimate | None:
    """Output tokens/s."""
    return run.throughput


def _by_load(
    name: str, title: str, y_label: str, x_label: str, runs: Sequence[RunFigures], measure: Measure
) -> Picture:
    series = _series(runs, lambda run, found: PlotPoint(
        x=run.load or 0.0, y=found.value, y_low=found.low, y_high=found.high,
        tip=f"{run.label}: {interval(found)}",
    ), measure)  # fmt: skip
    plot = Plot(
        title=title,
        description=f"{y_label} over {x_label}; bars are 95 % intervals. The numbers are in the table below.",
        x_label=x_label,
        y_label=y_label,
        series=series,
        x_from_zero=True,
        height=240,
    )
    table = Table(
        caption=f"{title}, with 95 % intervals",
        columns=("run", x_label, y_label),
        rows=tuple((run.label, f"{run.load:g}", interval(measure(run))) for run in _by_growing_load(runs)),
    )
    return picture(name, partial(draw, plot), table)


def _against_each_other(name: str, runs: Sequence[RunFigures]) -> Picture:
    def both(run: RunFigures, found: Estimate) -> PlotPoint:
        rate = throughput(run)
        assert rate is not None
        return PlotPoint(
            x=rate.value,
            x_low=rate.low,
            x_high=rate.high,
            y=found.value,
            y_low=found.low,
            y_high=found.high,
            label=load_text(run.run.meta.load),
            tip=f"{run.label}: {interval(rate)} tokens/s, {interval(found)} ms",
        )

    known = [run for run in runs if throughput(run) is not None]
    plot = Plot(
        title="Latency against throughput",
        description="p95 of user TTFT over output tokens per second, a point per run, joined in the order of "
        "their load. Down and to the right is better.",
        x_label="output tokens/s (more is better)",
        y_label="TTFT, user, p95, ms (less is better)",
        series=_series(known, both, ttft),
        x_from_zero=True,
        height=260,
    )
    rows = tuple(
        (run.label, interval(throughput(run)), interval(ttft(run))) for run in _by_growing_load(runs)
    )
    table = Table(
        caption="Latency against throughput, with 95 % intervals",
        columns=("run", "output tokens/s", "TTFT, user, p95, ms"),
        rows=rows,
    )
    return picture(name, partial(draw, plot), table)


def _series(
    runs: Sequence[RunFigures], point: Callable[[RunFigures, Estimate], PlotPoint], measure: Measure
) -> tuple[Series, ...]:
    """One for each group, its runs in the order of their load. Runs without the figure are left out."""
    groups: dict[tuple[str, str, str], list[RunFigures]] = {}
    for run in _by_growing_load(runs):
        groups.setdefault(run.group, []).append(run)
    names = _names(list(groups))
    return tuple(
        Series(
            name=name,
            number=number,
            points=tuple(point(run, found) for run in members if (found := measure(run)) is not None),
        )
        for number, (name, members) in enumerate(zip(names, groups.values(), strict=True))
    )


def _names(groups: Sequence[tuple[str, str, str]]) -> list[str]:
    """The variant, or the model without one; model and workload as well where they differ."""
    models, workloads = ({group[at] for group in groups} for at in (1, 2))
    names = []
    for variant, model, workload in groups:
        words = [variant or model]
        if variant and len(models) > 1:
            words.append(model)
        if len(workloads) > 1:
            words.append(workload)
        names.append(", ".join(words))
    return names


def _by_growing_load(runs: Sequence[RunFigures]) -> list[RunFigures]:
    return sorted(runs, key=lambda run: run.load or 0.0)
