"""The definitions. Every figure that this project publishes about latency or throughput is computed here.

Per request, from the stamps of `records.RequestRecord` (s = scheduled, w = written, first/last = arrival of
the first/last event with text, n = output tokens):

    TTFT_user     first - s             what a user waits; queueing in the client included
    TTFT_service  first - w             what the server is answerable for
    E2E           last - s              a usage event or `[DONE]` after the last token does not count
    TPOT          (last - first) / (n - tokens in the first arrival)
    NTPOT         (last - s) / n
    TBT           gap between two arrivals of text, divided by the tokens of the later one, weighted by them
    stall         the longest gap between two arrivals of text
    tokens/s      (n - 1) / (last - first), of one stream

Chunks that came in one read are one arrival: between them the client saw no time pass.

A metric is `None` where it has no meaning: TTFT and TPOT of a plain answer (nothing is known before the end),
TPOT of an answer whose tokens all came at once, TPOT and TBT of several choices in one stream.

Over requests: percentiles are nearest-rank (the smallest observation with at least p of the weight at or
below it), so each is a value that really occurred, and one is given only when at least one observation lies
above it. They cover complete requests; failures are counted beside them, and **goodput** divides by all
scheduled requests: good means complete, with every user metric within its objective. A metric that does not
exist for a request cannot be shown to meet its objective, so such a request is not good.

Throughput has two windows. `whole` runs from the first scheduled to the last end, ramp and drain included.
`steady` runs from the first text of the last of the initial requests to the sending of the last request:
there the planned load really was in flight. Tokens are counted by arrival stamp; those of requests that
failed later are among them, because the server did make them. The **peak** is the most output tokens in a
whole second of the run, counted from its start; a last second that is cut short is none.

A count that the server did not tell is unknown, and so is every total that it belongs to: `None`, never 0.
How many answers came without usage is counted.

The same records give the same figures to the last bit, on any machine and Python: sums are exact
(`math.fsum`), and nothing goes through a function whose last digit depends on a library.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import msgspec

from sluice_bench.records import Failure, RequestRecord
from sluice_bench.stats.percentile import percentile
from sluice_bench.stats.timeline import count_windows, peak_rate

NS = 1e-9


class Objective(msgspec.Struct, frozen=True, kw_only=True):
    """Service-level objectives, milliseconds; `None` sets none."""

    ttft_ms: float | None = None
    tpot_ms: float | None = None
    e2e_ms: float | None = None


class Distribution(msgspec.Struct, frozen=True, kw_only=True):
    """Of one metric over requests (or, for TBT, over tokens). Same unit as the values given."""

    count: int
    mean: float
    low: float
    high: float
    p50: float | None
    p90: float | None
    p95: float | None
    p99: float | None


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """Output tokens by arrival within a stretch of time."""

    seconds: float
    output_tokens: int | None
    """`None` when a complete answer does not say how many it has."""

    @property
    def tokens_per_s(self) -> float | None:
        """Throughput."""
        return None if self.output_tokens is None else self.output_tokens / self.seconds


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """One run in figures. Times are milliseconds."""

    scheduled: int
    complete: int
    failures: dict[str, int]
    connected: int
    """Requests that got a connection."""
    reused_connections: int
    """Of these, on one that was open before; the others' handshakes are in their user TTFT and E2E."""
    token_sources: dict[str, int]
    requests_without_usage: int
    """Complete ones whose server did not say how many tokens the prompt has."""
    requests_without_cached_tokens: int
    """Complete ones whose server did not say how much of the prompt came from a cache."""
    prompt_tokens: int | None
    """Of complete requests, as the two below; `None` when one of them is unknown."""
    output_tokens: int | None
    cached_tokens: int | None
    shorter_than_asked: int
    """Complete ones that ended before `max_tokens`: with other lengths, other work was measured."""
    longer_than_asked: int
    ttft_user_ms: Distribution | None
    ttft_service_ms: Distribution | None
    e2e_ms: Distribution | None
    tpot_ms: Distribution | None
    ntpot_ms: Distribution | None
    tbt_ms: Distribution | None
    stall_ms: Distribution | None
    dispatch_lag_ms: Distribution | None
    whole: Window | None
    steady: Window | None
    peak_tokens_per_s: float | None
    """In a whole second; `None` of a run shorter than that, of plain answers, and with an unknown count."""
    good: int
    goodput_share: float
    goodput_per_s: float


# --- per request -----------------------------------------------------------------------------------------


def ttft_user_s(record: RequestRecord) -> float | None:
    """First token minus schedule."""
    return _between(record.scheduled_ns, record.first_token_ns)


def ttft_service_s(record: RequestRecord) -> float | None:
    """First token minus write."""
    return _between(record.written_ns, record.first_token_ns)


def e2e_s(record: RequestRecord) -> float | None:
    """Last token minus schedule."""
    return _between(record.scheduled_ns, record.last_token_ns)


def dispatch_lag_s(record: RequestRecord) -> float | None:
    """How late the client itself was: dispatch minus schedule."""
    return _between(record.scheduled_ns, record.dispatched_ns)


def tpot_s(record: RequestRecord) -> float | None:
    """Seconds per output token after the first arrival."""
    if record.n_choices > 1 or not record.chunks or record.output_tokens is None:
        return None
    moments = arrivals(record)
    later = record.output_tokens - moments[0][1]
    span_ns = moments[-1][0] - moments[0][0]
    return span_ns * NS / later if later > 0 and len(moments) > 1 else None


def ntpot_s(record: RequestRecord) -> float | None:
    """Seconds per output token, everything included."""
    total = e2e_s(record)
    return total / record.output_tokens if total is not None and record.output_tokens else None


def arrivals(record: RequestRecord) -> list[tuple[int, int]]:
    """(stamp, tokens) of each arrival of text: chunks that came in one read are one arrival."""
    merged: list[tuple[int, int]] = []
    for chunk in record.chunks:
        if merged and merged[-1][0] == chunk.arrived_ns:
            merged[-1] = (chunk.arrived_ns, merged[-1][1] + chunk.n_tokens)
        else:
            merged.append((chunk.arrived_ns, chunk.n_tokens))
    return merged


def token_gaps(record: RequestRecord) -> Iterator[tuple[float, int]]:
    """(TBT in seconds, weight in tokens). An arrival without tokens adds its gap to the next one's."""
    if record.n_choices > 1:
        return
    moments = arrivals(record)
    since = moments[0][0] if moments else 0
    for stamp, tokens in moments[1:]:
        if tokens:
            yield (stamp - since) * NS / tokens, tokens
            since = stamp


def stall_s(record: RequestRecord) -> float | None:
    """The longest silence between two arrivals of text."""
    stamps = [stamp for stamp, _ in arrivals(record)]
    return max(((b - a) * NS for a, b in pairwise(stamps)), default=None)


def stream_tokens_per_s(record: RequestRecord) -> float | None:
    """(n - 1) / (last - first): the inverse of TPOT where the first arrival is one token."""
    span_s = _between(record.first_token_ns, record.last_token_ns)
    if not span_s or record.n_choices > 1 or record.output_tokens is None or record.output_tokens < 2:
        return None
    return (record.output_tokens - 1) / span_s


def is_good(record: RequestRecord, objective: Objective) -> bool:
    """Complete, and every objective met by a metric that exists."""
    limits = (
        (objective.ttft_ms, ttft_user_s(record)),
        (objective.tpot_ms, tpot_s(record)),
        (objective.e2e_ms, e2e_s(record)),
    )
    if record.failure is not None:
        return False
    return all(limit is None or (value is not None and value * 1000 <= limit) for limit, value in limits)


def _between(start_ns: int | None, end_ns: int | None) -> float | None:
    return None if start_ns is None or end_ns is None else (end_ns - start_ns) * NS


# --- over requests ---------------------------------------------------------------------------------------


def distribution(values: Iterable[float | None]) -> Distribution | None:
    """Of the values that exist; `None` when there is none."""
    return weighted_distribution([(value, 1) for value in values if value is not None])


def weighted_distribution(weighted: Sequence[tuple[float, int]]) -> Distribution | None:
    """Of `(value, weight)` pairs; `None` when the weights sum to nothing."""
    count = sum(weight for _, weight in weighted)
    if count == 0:
        return None
    return Distribution(
        count=count,
        mean=math.fsum(value * weight for value, weight in weighted) / count,
        low=min(value for value, _ in weighted),
        high=max(value for value, _ in weighted),
        p50=_supported(weighted, 0.5, count),
        p90=_supported(weighted, 0.9, count),
        p95=_supported(weighted, 0.95, count),
        p99=_supported(weighted, 0.99, count),
    )


def _supported(weighted: Sequence[tuple[float, int]], share: float, count: int) -> float | None:
    """A percentile, if enough was observed: p99 of twenty requests would only be their maximum."""
    enough = share <= 0.5 or count * (1 - share) >= 1 - 1e-9
    return percentile(weighted, share) if enough else None


def summarise(records: Sequence[RequestRecord], objective: Objective, initial: int = 1) -> Summary:
    """Figures of a run; `initial` is the closed loop's concurrency (1 for an open loop).

    Warm-up requests are in none of them. Raises `ValueError` without other records.
    """
    records = [record for record in records if record.phase == "measured"]
    if not records:
        raise ValueError("a summary needs at least one scheduled request")
    done = [record for record in records if record.failure is None]
    good = sum(is_good(record, objective) for record in records)
    whole = whole_window(records)
    return Summary(
        scheduled=len(records),
        complete=len(done),
        failures=_failure_counts(records),
        connected=sum(record.connected_ns is not None for record in records),
        reused_connections=sum(record.reused_connection for record in records),
        token_sources=dict(Counter(record.token_source.value for record in done)),
        requests_without_usage=sum(record.prompt_tokens is None for record in done),
        requests_without_cached_tokens=sum(record.cached_tokens is None for record in done),
        prompt_tokens=known_total(record.prompt_tokens for record in done),
        output_tokens=known_total(record.output_tokens for record in done),
        cached_tokens=known_total(record.cached_tokens for record in done),
        shorter_than_asked=sum(_excess(record) < 0 for record in done),
        longer_than_asked=sum(_excess(record) > 0 for record in done),
        ttft_user_ms=distribution(_ms(ttft_user_s(record)) for record in done),
        ttft_service_ms=distribution(_ms(ttft_service_s(record)) for record in done),
        e2e_ms=distribution(_ms(e2e_s(record)) for record in done),
        tpot_ms=distribution(_ms(tpot_s(record)) for record in done),
        ntpot_ms=distribution(_ms(ntpot_s(record)) for record in done),
        tbt_ms=weighted_distribution([(gap * 1000, n) for record in done for gap, n in token_gaps(record)]),
        stall_ms=distribution(_ms(stall_s(record)) for record in done),
        dispatch_lag_ms=distribution(_ms(dispatch_lag_s(record)) for record in records),
        whole=whole,
        steady=steady_window(records, initial),
        peak_tokens_per_s=peak_tokens_per_s(records),
        good=good,
        goodput_share=good / len(records),
        goodput_per_s=good / whole.seconds if whole else 0.0,
    )


def known_total(counts: Iterable[int | None]) -> int | None:
    """The sum; `None` when one of the counts is unknown."""
    total = 0
    for count in counts:
        if count is None:
            return None
        total += count
    return total


def _excess(record: RequestRecord) -> int:
    """Output tokens beyond those asked for; 0 where either is unknown."""
    if record.asked_tokens is None or record.output_tokens is None:
        return 0
    return record.output_tokens - record.asked_tokens


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000


def _failure_counts(records: Sequence[RequestRecord]) -> dict[str, int]:
    found: Counter[Failure] = Counter(record.failure for record in records if record.failure is not None)
    return {failure.value: count for failure, count in sorted(found.items())}


def whole_window(records: Sequence[RequestRecord]) -> Window | None:
    """From the first scheduled to the last end; `None` when nothing ended."""
    span = whole_span(records)
    return None if span is None else _window(records, *span)


def whole_span(records: Sequence[RequestRecord]) -> tuple[int, int] | None:
    """First schedule and last end; `None` when nothing ended."""
    ends = [record.end_ns for record in records if record.end_ns is not None]
    return (min(record.scheduled_ns for record in records), max(ends)) if ends else None


def peak_tokens_per_s(records: Sequence[RequestRecord]) -> float | None:
    """Of whole seconds; the last one does not count when the run ends inside it.

    `None` with plain answers: when their tokens were made is unknown.
    """
    span = whole_span(records)
    if span is None or span[0] >= span[1]:
        return None
    if any(record.last_token_ns is not None and not record.chunks for record in records):
        return None
    return peak_rate(count_windows(all_token_stamps(records), *span))


def all_token_stamps(records: Iterable[RequestRecord]) -> list[tuple[int, int | None]]:
    """(arrival, tokens) of every chunk; of a plain answer, its end and all of its tokens."""
    return [stamped for record in records for stamped in _token_stamps(record)]


def steady_window(records: Sequence[RequestRecord], initial: int) -> Window | None:
    """While `initial` or more requests were in flight; `None` when there is no such stretch."""
    first = [record.first_token_ns or record.end_ns for record in records[:initial]]
    started = [stamp for stamp in first if stamp is not None]
    sent = [record.dispatched_ns for record in records if record.dispatched_ns is not None]
    if len(started) < initial or len(sent) <= initial or max(sent) <= max(started):
        return None
    return _window(records, max(started), max(sent))


def _window(records: Sequence[RequestRecord], start_ns: int, end_ns: int) -> Window | None:
    tokens = known_total(count for stamp, count in all_token_stamps(records) if start_ns < stamp <= end_ns)
    return Window(seconds=(end_ns - start_ns) * NS, output_tokens=tokens) if end_ns > start_ns else None


def _token_stamps(record: RequestRecord) -> list[tuple[int, int | None]]:
    if record.chunks:
        return [(chunk.arrived_ns, chunk.n_tokens) for chunk in record.chunks]
    return [] if record.last_token_ns is None else [(record.last_token_ns, record.output_tokens)]
