"""The runs of a report, each with its name, its figures, and what these are worth.

Values are those of `RunRecord.summary`, to the last bit; bounds come from `stats.intervals`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from random import Random

import msgspec

from sluice_bench import metrics
from sluice_bench.metrics import Distribution, Summary
from sluice_bench.recording.run_record import LoadSettings, RunRecord
from sluice_bench.records import RequestRecord
from sluice_bench.stats.estimate import Estimate
from sluice_bench.stats.intervals import bootstrap_interval, percentile_interval, share_interval
from sluice_bench.stats.timeline import SECOND_NS, CountWindow, count_windows

MIN_SECONDS = 10
"""Fewer whole seconds give throughput no interval."""
_BLOCK_S = 5
"""Neighbouring seconds are drawn together, because what one leaves over the next must do."""


class Metric(msgspec.Struct, frozen=True):
    """A latency of one request, and where its distribution is in a summary."""

    name: str
    key: str
    seconds: Callable[[RequestRecord], float | None]
    found: Callable[[Summary], Distribution | None]


METRICS = (
    Metric("TTFT, user", "ttft", metrics.ttft_user_s, lambda summary: summary.ttft_user_ms),
    Metric("TPOT", "tpot", metrics.tpot_s, lambda summary: summary.tpot_ms),
    Metric("E2E", "e2e", metrics.e2e_s, lambda summary: summary.e2e_ms),
)
TTFT, TPOT, E2E = METRICS
SHARES = (0.5, 0.9, 0.95, 0.99)


class RunFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a report. `number` chooses its ink, dash and marker everywhere."""

    label: str
    number: int
    run: RunRecord
    summary: Summary
    throughput: Estimate | None
    """Output tokens/s over the whole run; `None` when it is unknown."""
    percentiles: dict[tuple[str, float], Estimate]
    """By the key of their metric and the share, milliseconds."""

    @property
    def group(self) -> tuple[str, str, str]:
        """Variant, model and workload: runs of one loop that differ in their load only share it."""
        meta = self.run.meta
        return meta.variant, meta.server.model, meta.workload

    @property
    def load(self) -> float | None:
        """Users of a closed loop, requests per second of an open one; `None` when it has no one rate."""
        settings = self.run.meta.load
        return settings.rate_per_s if settings.loop == "open" else settings.concurrency

    @property
    def requests(self) -> tuple[RequestRecord, ...]:
        """Those that count; warm-up requests do not."""
        return self.run.measured

    def values_ms(self, metric: Metric) -> list[float]:
        """Of complete requests, in the order of their index."""
        return values_ms(self.requests, metric)

    def percentile(self, metric: Metric, share: float) -> Estimate | None:
        """The summary's p50, p90, p95 or p99, milliseconds, with bounds; `None` where it gives none."""
        return self.percentiles.get((metric.key, share))

    def goodput(self) -> Estimate:
        """Share of scheduled requests that were good."""
        return share_interval(self.summary.good, self.summary.scheduled)


def values_ms(requests: Iterable[RequestRecord], metric: Metric) -> list[float]:
    """Of complete requests."""
    done = (record for record in requests if record.failure is None)
    return [value * 1000 for record in done if (value := metric.seconds(record)) is not None]


def percentiles_of(requests: Sequence[RequestRecord], summary: Summary) -> dict[tuple[str, float], Estimate]:
    """Those that the summary gives, by metric and share, with bounds."""
    found: dict[tuple[str, float], Estimate] = {}
    for metric in METRICS:
        distribution = metric.found(summary)
        if distribution is None:
            continue
        values = values_ms(requests, metric)
        for share in SHARES:
            value = getattr(distribution, f"p{share * 100:.0f}")
            if value is not None:
                bounds = percentile_interval(values, share)
                found[metric.key, share] = msgspec.structs.replace(bounds, value=value)
    return found


def token_windows(requests: Sequence[RequestRecord], width_ns: int = SECOND_NS) -> list[CountWindow]:
    """Output tokens by the window in which they came; none when the run has no length."""
    span = metrics.whole_span(requests)
    if span is None or span[0] >= span[1]:
        return []
    return count_windows(metrics.all_token_stamps(requests), *span, width_ns)


def throughput_of(requests: Sequence[RequestRecord], summary: Summary) -> Estimate | None:
    """The summary's output tokens/s; bounds by drawing the run's seconds anew, five neighbours at once."""
    whole = summary.whole
    if whole is None or whole.tokens_per_s is None:
        return None
    windows = token_windows(requests)
    if sum(not window.partial for window in windows) < MIN_SECONDS:
        return Estimate(value=whole.tokens_per_s, low=None, high=None, n=len(windows))
    pieces = [(window.count or 0, (window.end_ns - window.start_ns) * metrics.NS) for window in windows]
    bounds = bootstrap_interval(pieces, _rate, Random(1), block=_BLOCK_S, resamples=500)
    return msgspec.structs.replace(bounds, value=whole.tokens_per_s)


def _rate(pieces: Sequence[tuple[int, float]]) -> float:
    return sum(count for count, _ in pieces) / math.fsum(seconds for _, seconds in pieces)


def figures_of(runs: Iterable[tuple[str, RunRecord]]) -> tuple[RunFigures, ...]:
    """Of (file name, run) pairs. Raises `ValueError` of a run without requests."""
    named = list(runs)
    workloads = {run.meta.workload for _, run in named}
    labels = [_label(run, with_workload=len(workloads) > 1) for _, run in named]
    seen = Counter(labels)
    labels = [
        f"{label} ({name})" if seen[label] > 1 else label
        for label, (name, _) in zip(labels, named, strict=True)
    ]
    return tuple(
        _figures(label, number, run)
        for number, (label, (_, run)) in enumerate(zip(labels, named, strict=True))
    )


def _figures(label: str, number: int, run: RunRecord) -> RunFigures:
    summary, requests = run.summary, run.measured
    return RunFigures(
        label=label,
        number=number,
        run=run,
        summary=summary,
        throughput=throughput_of(requests, summary),
        percentiles=percentiles_of(requests, summary),
    )


def _label(run: RunRecord, with_workload: bool) -> str:
    meta = run.meta
    words = [meta.variant or meta.server.model, load_text(meta.load)]
    return ", ".join([*words, meta.workload] if with_workload else words)


def load_text(load: LoadSettings) -> str:
    """`8 users` or `2.5/s`."""
    if load.loop == "closed":
        return f"{load.concurrency or 1} user{'s' if load.concurrency != 1 else ''}"
    return f"{load.rate_per_s:g}/s" if load.rate_per_s is not None else f"open loop, {load.arrival}"
