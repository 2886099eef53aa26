"""A run's figures as gauges for a Prometheus push gateway.

A run is pushed as one group by HTTP PUT, so a later run of the same variant, model, workload and load takes
the place of an earlier one, and others stay. Durations are seconds and shares are ratios, as is usual there.
What is unknown is not pushed: an absent gauge, never 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from functools import partial
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit, urlunsplit

import msgspec
from prometheus_client import CollectorRegistry, Gauge, push_to_gateway
from prometheus_client.exposition import basic_auth_handler, default_handler

from sluice_bench.metrics import Distribution
from sluice_bench.recording.run_record import RunRecord
from sluice_bench.reports.run_figures import load_text

JOB = "sluice_bench"
_TIMEOUT_S = 10.0
_QUANTILES = (("0.5", "p50"), ("0.9", "p90"), ("0.95", "p95"), ("0.99", "p99"))


class PushFailed(Exception):
    """The message says why."""


class Metric(msgspec.Struct, frozen=True):
    """One gauge: what it is, and the label that tells its values apart."""

    name: str
    help: str
    label: str = ""


TTFT = Metric("sluice_bench_ttft_seconds", "TTFT, user: first token minus the time due.", "quantile")
TPOT = Metric("sluice_bench_tpot_seconds", "Time per output token after the first arrival.", "quantile")
TBT = Metric("sluice_bench_tbt_seconds", "Time between tokens, weighted by tokens.", "quantile")
E2E = Metric("sluice_bench_e2e_seconds", "Last token minus the time due.", "quantile")
THROUGHPUT = Metric(
    "sluice_bench_output_tokens_per_second", "Output tokens/s: whole run, steady part, peak second.", "window"
)
REQUESTS = Metric("sluice_bench_requests", "Scheduled requests by what became of them.", "outcome")
TOKENS = Metric("sluice_bench_tokens", "Tokens of complete requests.", "kind")
GOODPUT = Metric("sluice_bench_goodput_ratio", "Requests within every objective, of all scheduled.")
GOOD_RATE = Metric("sluice_bench_goodput_requests_per_second", "Requests within every objective, per second.")
CLIENT_ERROR = Metric("sluice_bench_client_error_seconds", "Upper bound of the load client's own error.")
VOID = Metric("sluice_bench_void", "1 when the client was too slow for its figures to be believed.")
STARTED = Metric("sluice_bench_started_timestamp_seconds", "When the run began, Unix time.")

METRICS = (
    TTFT, TPOT, TBT, E2E, THROUGHPUT, REQUESTS, TOKENS, GOODPUT, GOOD_RATE, CLIENT_ERROR, VOID, STARTED,
)  # fmt: skip

Sample = tuple[Metric, str, float]


def samples(run: RunRecord) -> Iterator[Sample]:
    """(gauge, value of its label, value)."""
    summary, calibration = run.summary, run.meta.calibration
    yield from _quantiles(TTFT, summary.ttft_user_ms)
    yield from _quantiles(TPOT, summary.tpot_ms)
    yield from _quantiles(TBT, summary.tbt_ms)
    yield from _quantiles(E2E, summary.e2e_ms)
    for window, found in (("whole", summary.whole), ("steady", summary.steady)):
        if found is not None and found.tokens_per_s is not None:
            yield THROUGHPUT, window, found.tokens_per_s
    if summary.peak_tokens_per_s is not None:
        yield THROUGHPUT, "peak", summary.peak_tokens_per_s
    yield REQUESTS, "complete", summary.complete
    for failure, count in summary.failures.items():
        yield REQUESTS, failure, count
    kinds = (
        ("prompt", summary.prompt_tokens),
        ("cached", summary.cached_tokens),
        ("output", summary.output_tokens),
    )
    for kind, total in kinds:
        if total is not None:
            yield TOKENS, kind, total
    yield GOODPUT, "", summary.goodput_share
    yield GOOD_RATE, "", summary.goodput_per_s
    if calibration.null_p99_ms is not None:
        yield CLIENT_ERROR, "", calibration.error_ms / 1000
    yield VOID, "", float(calibration.void)
    yield STARTED, "", datetime.fromisoformat(run.meta.started_utc).timestamp()


def _quantiles(metric: Metric, found: Distribution | None) -> Iterator[Sample]:
    if found is not None:
        for label, name in _QUANTILES:
            value: float | None = getattr(found, name)
            if value is not None:
                yield metric, label, value / 1000


def registry_of(run: RunRecord) -> CollectorRegistry:
    """The gauges with their values."""
    registry = CollectorRegistry()
    gauges: dict[str, Gauge] = {}
    for metric, label, value in samples(run):
        if metric.name not in gauges:
            labels = [metric.label] if metric.label else []
            gauges[metric.name] = Gauge(metric.name, metric.help, labels, registry=registry)
        gauge = gauges[metric.name]
        (gauge.labels(label) if metric.label else gauge).set(value)
    return registry


def grouping_key(run: RunRecord) -> dict[str, str]:
    """Labels of everything that is pushed; a push takes the place of an earlier one with the same."""
    meta = run.meta
    return {
        "variant": meta.variant or meta.server.model,
        "model": meta.server.model,
        "workload": meta.workload,
        "load": load_text(meta.load),
    }


def push(run: RunRecord, url: str) -> None:
    """PUT a run to the push gateway at `url`, which may have `user:password@`. Raises `PushFailed`."""
    address, user, password = _address(url)
    sending = default_handler
    if user is not None:
        sending = partial(basic_auth_handler, username=user, password=password or "")
    try:
        push_to_gateway(
            address,
            job=JOB,
            registry=registry_of(run),
            grouping_key=grouping_key(run),
            timeout=_TIMEOUT_S,
            handler=sending,
        )
    except (OSError, ValueError) as error:
        if isinstance(error, HTTPError):
            error.close()
        raise PushFailed(f"{address} did not take the figures: {error}") from error


def _address(url: str) -> tuple[str, str | None, str | None]:
    """Without credentials, and these."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise PushFailed("the address to push to is no URL; it looks like http://HOST:9091") from error
    if parts.scheme not in ("http", "https") or not host:
        raise PushFailed("the address to push to is no URL; it looks like http://HOST:9091")
    authority = f"[{host}]" if ":" in host else host
    authority += f":{port}" if port else ""
    address = urlunsplit((parts.scheme, authority, parts.path, "", ""))
    user = None if parts.username is None else unquote(parts.username)
    return address, user, None if parts.password is None else unquote(parts.password)
