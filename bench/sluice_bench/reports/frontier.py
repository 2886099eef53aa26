"""Quality beside speed: which runs lose to none in both, with error bars on both axes.

A quality file has one backend, or one beside a reference. It belongs to the runs of the same variant.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import msgspec

from sluice_bench.reports.chart import Plot, PlotPoint, Series, draw
from sluice_bench.reports.page import Picture, Section, Table, interval, picture
from sluice_bench.reports.run_figures import RunFigures
from sluice_bench.stats.estimate import Estimate


class QualityMeasure(msgspec.Struct, frozen=True, kw_only=True):
    """One way to say how good answers are."""

    key: str
    title: str
    more_is_better: bool


MEASURES = (
    QualityMeasure(key="perplexity", title="perplexity", more_is_better=False),
    QualityMeasure(key="kl", title="KL from the reference, at least, nats per token", more_is_better=False),
    QualityMeasure(key="greedy", title="greedy agreement, share of tokens", more_is_better=True),
    QualityMeasure(key="same-answers", title="greedy answers that are equal, share", more_is_better=True),
    QualityMeasure(key="bleu", title="BLEU against reference texts", more_is_better=True),
)


class QualityFound(msgspec.Struct, frozen=True, kw_only=True):
    """What a file says of one backend."""

    variant: str
    model: str
    figures: dict[str, Estimate]
    """By the key of their measure."""


class BadQualityFile(Exception):
    """The message says what is wrong with it."""


class _Backend(msgspec.Struct):
    perplexity: Estimate
    variant: str = ""
    model: str = ""
    bleu: Estimate | None = None


class _Divergence(msgspec.Struct):
    kl_lower_bound: Estimate


class _Agreement(msgspec.Struct):
    same_answers: Estimate
    common_share: Estimate | None = None


class _Quality(msgspec.Struct):
    """Of what `sluice-bench quality --output` writes, the part that a report needs."""

    backend: _Backend
    reference: _Backend | None = None
    divergence: _Divergence | None = None
    agreement: _Agreement | None = None


def read_quality(path: Path) -> list[QualityFound]:
    """Backend and reference of a file, or of a list of such. Raises `BadQualityFile`, `OSError`."""
    try:
        content = msgspec.json.decode(path.read_bytes(), type=_Quality | list[_Quality])
    except msgspec.DecodeError as error:
        raise BadQualityFile(f"{path} is not what `quality --output` writes: {error}") from error
    records = content if isinstance(content, list) else [content]
    return [found for record in records for found in _found(record)]


def _found(record: _Quality) -> Iterator[QualityFound]:
    figures = {"perplexity": record.backend.perplexity}
    if record.backend.bleu is not None:
        figures["bleu"] = record.backend.bleu
    if record.divergence is not None:
        figures["kl"] = record.divergence.kl_lower_bound
    if record.agreement is not None:
        figures["same-answers"] = record.agreement.same_answers
        if record.agreement.common_share is not None:
            figures["greedy"] = record.agreement.common_share
    yield QualityFound(variant=record.backend.variant, model=record.backend.model, figures=figures)
    if record.reference is not None:
        yield _reference(record.reference, {*figures} - {"perplexity", "bleu"})


def _reference(backend: _Backend, compared: set[str]) -> QualityFound:
    """It agrees with itself, by definition."""
    itself = {"kl": 0.0, "same-answers": 1.0, "greedy": 1.0}
    figures = {
        key: Estimate(value=value, low=value, high=value, n=1)
        for key, value in itself.items()
        if key in compared
    }
    figures["perplexity"] = backend.perplexity
    if backend.bleu is not None:
        figures["bleu"] = backend.bleu
    return QualityFound(variant=backend.variant, model=backend.model, figures=figures)


Pair = tuple[RunFigures, Estimate]


def frontier_section(runs: Sequence[RunFigures], found: Iterable[QualityFound]) -> Section:
    """A picture for each measure that a run has."""
    results = list(found)
    pictures = []
    for measure in MEASURES:
        pairs = [(run, value) for run in runs if (value := _value_for(run, measure, results)) is not None]
        if pairs:
            pictures.append(_picture(measure, pairs))
    unmatched = [result for result in results if not any(_belongs(result, run) for run in runs)]
    closing = [
        f"No run for the quality of {result.variant or result.model or 'an unnamed backend'}: give the "
        "run the same --variant."
        for result in unmatched
    ]
    return Section(
        title="Quality beside speed",
        paragraphs=(
            "Each run with the quality of its variant, or of its model where that has no variant; bars are "
            "95 % intervals. The line joins the frontier: runs that no other beats in both. KL divergence is "
            "a lower bound, since a server tells its most likely tokens only; the reference's own is 0 by "
            "definition.",
        ),
        pictures=tuple(pictures),
        closing=tuple(closing),
    )


def _belongs(result: QualityFound, run: RunFigures) -> bool:
    """By variant, where the result has one; by model otherwise."""
    meta = run.run.meta
    return meta.variant == result.variant if result.variant else meta.server.model == result.model


def _value_for(run: RunFigures, measure: QualityMeasure, results: Sequence[QualityFound]) -> Estimate | None:
    if run.throughput is None:
        return None
    mine = sorted(
        (result for result in results if _belongs(result, run)), key=lambda found: not found.variant
    )
    return next((result.figures[measure.key] for result in mine if measure.key in result.figures), None)


def pareto(points: Sequence[tuple[float, float]], more_is_better: bool) -> list[int]:
    """Places of those whom no other is at least equal to in both, and better in one; by growing speed."""
    sign = 1 if more_is_better else -1
    scored = [(speed, sign * quality) for speed, quality in points]

    def beaten(mine: tuple[float, float]) -> bool:
        return any(other != mine and other[0] >= mine[0] and other[1] >= mine[1] for other in scored)

    return sorted(
        (place for place, mine in enumerate(scored) if not beaten(mine)), key=lambda place: scored[place]
    )


def _picture(measure: QualityMeasure, pairs: Sequence[Pair]) -> Picture:
    points = [_point(run, value, measure) for run, value in pairs]
    best = pareto([(point.x, point.y) for point in points], measure.more_is_better)
    frontier = tuple(PlotPoint(x=points[place].x, y=points[place].y) for place in best)
    series = tuple(
        Series(name=run.label, number=run.number, points=(point,), line=False)
        for (run, _), point in zip(pairs, points, strict=True)
    )
    plot = Plot(
        title=f"{measure.title[0].upper()}{measure.title[1:]}, by throughput",
        description=f"{measure.title} over output tokens per second with intervals on both; the frontier is "
        "joined. The numbers are in the table below.",
        x_label="output tokens/s (more is better)",
        y_label=f"{measure.title} ({'more' if measure.more_is_better else 'less'} is better)",
        series=(Series(name="", number=7, points=frontier, markers=False), *series),
        y_from_zero=False,
        key=True,
        height=280,
    )
    rows = tuple(
        (run.label, interval(run.throughput), interval(value), "yes" if place in best else "no")
        for place, (run, value) in enumerate(pairs)
    )
    columns = ("run", "output tokens/s", measure.title, "on the frontier")
    table = Table(caption=f"{measure.title} and speed", columns=columns, rows=rows)
    return picture(f"frontier-{measure.key}", partial(draw, plot), table)


def _point(run: RunFigures, value: Estimate, measure: QualityMeasure) -> PlotPoint:
    speed = run.throughput
    assert speed is not None  # such runs have no value here
    return PlotPoint(
        x=speed.value,
        x_low=speed.low,
        x_high=speed.high,
        y=value.value,
        y_low=value.low,
        y_high=value.high,
        tip=f"{run.label}: {interval(speed)} tokens/s, {measure.title} {interval(value)}",
    )
