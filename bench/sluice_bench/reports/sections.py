"""What a report says, in its order: what was measured, how fast it was, what that costs and is worth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from sluice_bench.omission_warning import omission_line
from sluice_bench.reports.cost import Price, cost_section
from sluice_bench.reports.distributions import distribution_pictures
from sluice_bench.reports.frontier import QualityFound, frontier_section
from sluice_bench.reports.lanes import lanes_picture
from sluice_bench.reports.latency_curves import curve_pictures
from sluice_bench.reports.page import (
    NOTHING,
    Page,
    Section,
    Table,
    count,
    figure,
    interval,
    known,
    share,
)
from sluice_bench.reports.ratio_plot import AbFound, comparison_section
from sluice_bench.reports.run_figures import METRICS, RunFigures, load_text
from sluice_bench.reports.search_plot import SearchFound, search_section
from sluice_bench.reports.timeline_plot import timeline_picture

MOST_DETAILED = 5
"""Runs with a timeline and lanes of their own."""


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a report is made of."""

    runs: tuple[RunFigures, ...]
    comparisons: tuple[AbFound, ...] = ()
    search: SearchFound | None = None
    quality: tuple[QualityFound, ...] = ()
    prices: tuple[Price, ...] = ()


def page_of(findings: Findings, title: str = "") -> Page:
    """The report. Parts for which nothing was given are left out."""
    runs = findings.runs
    return Page(
        title=title or _title(runs),
        lines=tuple(_lines(runs)),
        warnings=tuple(_warnings(runs)),
        sections=tuple(_sections(findings)),
    )


def _title(runs: Sequence[RunFigures]) -> str:
    models = sorted({run.run.meta.server.model for run in runs})
    return "Measured: " + ", ".join(models[:3]) + (" and others" if len(models) > 3 else "")


def _lines(runs: Sequence[RunFigures]) -> Iterator[str]:
    days = sorted({run.run.meta.started_utc[:10] for run in runs})
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    total = sum(run.summary.scheduled for run in runs)
    yield f"{len(runs)} run{'s' if len(runs) > 1 else ''}, {total:,} requests, {when}."


def _warnings(runs: Sequence[RunFigures]) -> Iterator[str]:
    """One for each kind of trouble, with the runs that have it."""
    void = [run.label for run in runs if run.run.meta.calibration.void]
    if void:
        yield (
            f"VOID: {'; '.join(void)}. The client was too slow, or nothing completed: latencies say more of "
            "the client than of the server."
        )
    lines = [
        f"{run.label}: {run.summary.scheduled - run.summary.complete:,} of {run.summary.scheduled:,} "
        f"({', '.join(f'{name} {count}' for name, count in run.summary.failures.items())})"
        for run in runs
        if run.summary.failures
    ]
    if lines:
        yield f"Failed requests: {'; '.join(lines)}. Latencies are of the others."
    lines = [
        f"{run.label}: {run.summary.shorter_than_asked:,} of {run.summary.complete:,}"
        for run in runs
        if run.summary.shorter_than_asked
    ]
    if lines:
        yield f"Answers shorter than asked: {'; '.join(lines)}. Other lengths are other work."
    for run in runs:
        hidden = omission_line(run.run.requests, closed_loop=run.run.meta.load.loop == "closed")
        if hidden:
            yield f"{run.label}: {hidden}"
    if not asked_the_same(runs):
        yield "These runs did not all ask the same (workloads or seeds differ): compare with that in mind."


def asked_the_same(runs: Sequence[RunFigures]) -> bool:
    """Whether they had the same requests, as far as each went; who was asked may differ.

    The first n requests of a workload with one seed are the same, however many follow.
    """
    asked: dict[tuple[str, int, int], set[str]] = {}
    for run in runs:
        meta = run.run.meta
        key = meta.workload, meta.load.seed, len(run.run.requests)
        asked.setdefault(key, set()).add(meta.workload_sha256)
    workloads = {(workload, seed) for workload, seed, _ in asked}
    return len(workloads) <= 1 and all(len(digests) == 1 for digests in asked.values())


def _sections(findings: Findings) -> Iterator[Section]:
    runs = findings.runs
    yield Section(title="Summary", tables=(summary_table(runs),), closing=_summary_notes())
    for number, found in enumerate(findings.comparisons, start=1):
        yield comparison_section(found, number)
    if findings.search is not None:
        yield search_section(findings.search)
    if curves := curve_pictures(runs):
        yield Section(title="Latency and throughput by load", pictures=curves)
    if distributions := distribution_pictures(runs):
        yield Section(title="Distributions", pictures=distributions)
    if findings.quality:
        yield frontier_section(runs, findings.quality)
    if findings.prices:
        yield cost_section(runs, findings.prices)
    yield from _detailed(runs)
    yield _provenance(runs)


def _detailed(runs: Sequence[RunFigures]) -> Iterator[Section]:
    some = runs[:MOST_DETAILED]
    left = f"The first {MOST_DETAILED} of {len(runs)} runs." if len(runs) > MOST_DETAILED else ""
    timelines = tuple(found for run in some if (found := timeline_picture(run)) is not None)
    if timelines:
        yield Section(title="Timelines", paragraphs=(left,) if left else (), pictures=timelines)
    lanes = tuple(found for run in some if (found := lanes_picture(run)) is not None)
    if lanes:
        yield Section(title="Requests", paragraphs=(left,) if left else (), pictures=lanes)


def summary_table(runs: Sequence[RunFigures]) -> Table:
    """A column per run."""
    rows: list[tuple[str, ...]] = [
        ("load", *(load_text(run.run.meta.load) for run in runs)),
        ("workload", *(run.run.meta.workload for run in runs)),
        ("requests complete", *(f"{run.summary.complete} of {run.summary.scheduled}" for run in runs)),
    ]
    for metric in METRICS:
        for percent in (50, 95, 99):
            cells = tuple(interval(run.percentile(metric, percent / 100)) for run in runs)
            if any(cell != NOTHING for cell in cells):
                rows.append((f"{metric.name}, p{percent}, ms", *cells))
    rows += [
        ("time between tokens, p99, ms", *(_between_tokens(run) for run in runs)),
        ("goodput, share of scheduled", *(share(run.goodput()) for run in runs)),
        ("goodput, requests/s", *(figure(run.summary.goodput_per_s) for run in runs)),
        ("output tokens/s, whole run", *(_rate(run) for run in runs)),
        ("output tokens/s, steady part", *(_steady(run) for run in runs)),
        ("output tokens/s, most in a second", *(figure(run.summary.peak_tokens_per_s) for run in runs)),
        ("prompt tokens", *(count(run.summary.prompt_tokens) for run in runs)),
        ("of these from a cache", *(count(run.summary.cached_tokens) for run in runs)),
        ("output tokens", *(count(run.summary.output_tokens) for run in runs)),
        ("client's own error, ms", *(figure(_error(run)) for run in runs)),
        ("client", *("VOID" if run.run.meta.calibration.void else "valid" for run in runs)),
    ]
    return Table(
        caption="Runs side by side", columns=("figure", *(run.label for run in runs)), rows=tuple(rows)
    )


def _summary_notes() -> tuple[str, ...]:
    return (
        "In brackets: where the true figure lies in 95 of 100 runs, if requests do not depend on each other; "
        "where they queue, repeat the run. Without an interval there were too few requests, or seconds, to "
        "claim one. Unknown means that the server did not say; – that there is no such figure.",
        "TTFT, user: first token minus the time the request was due. TPOT: time per output token after the "
        "first arrival. E2E: last token minus the time due. Goodput: complete requests within every "
        "objective, of all scheduled.",
    )


def _between_tokens(run: RunFigures) -> str:
    """By tokens; neighbours in an answer depend on each other, so it gets no interval."""
    found = run.summary.tbt_ms
    return NOTHING if found is None else figure(found.p99)


def _rate(run: RunFigures) -> str:
    return "unknown" if run.throughput is None else interval(run.throughput)


def _steady(run: RunFigures) -> str:
    steady = run.summary.steady
    return NOTHING if steady is None else known(steady.tokens_per_s)


def _error(run: RunFigures) -> float | None:
    calibration = run.run.meta.calibration
    return None if calibration.null_p99_ms is None else calibration.error_ms


def _provenance(runs: Sequence[RunFigures]) -> Section:
    rows = (
        ("server", *(run.run.meta.server.url for run in runs)),
        ("model", *(run.run.meta.server.model for run in runs)),
        ("started, UTC", *(run.run.meta.started_utc for run in runs)),
        ("command", *(run.run.meta.command for run in runs)),
        ("processor", *(run.run.meta.environment.cpu for run in runs)),
        ("cores", *(str(run.run.meta.environment.cores) for run in runs)),
        ("memory, GiB", *(f"{run.run.meta.environment.memory_gib:.1f}" for run in runs)),
        ("system", *(run.run.meta.environment.system for run in runs)),
        ("Python", *(run.run.meta.environment.python for run in runs)),
        ("load average before", *(f"{run.run.meta.environment.load_average:.2f}" for run in runs)),
        ("sluice commit", *(run.run.meta.environment.commit for run in runs)),
        ("workload, SHA-256", *(run.run.meta.workload_sha256[:16] for run in runs)),
        ("requests, SHA-256", *(run.run.meta.requests_sha256[:16] for run in runs)),
        ("records, SHA-256", *(run.run.meta.records_sha256[:16] for run in runs)),
        ("figures, SHA-256", *(run.run.meta.figures_sha256[:16] for run in runs)),
    )
    return Section(
        title="Where this comes from",
        paragraphs=(
            "Machine and versions are those of the load client. Figures are derived from the requests in the "
            "run files; `sluice-bench verify` derives them again.",
        ),
        tables=(Table(caption="Runs", columns=("", *(run.label for run in runs)), rows=rows),),
    )
