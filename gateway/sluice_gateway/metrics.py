"""What the gateway counts, for Prometheus.

A registry of its own, nothing global. Label values come from the configuration and from enums, never from a
client, so that a scanner of paths or models adds no series. Children are looked up once and kept: `labels()`
costs four times an increment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from sluice_gateway.exchange import Exchange
from sluice_router.router import RouterSnapshot

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PREFIX = "sluice_gateway_"
NO_BACKEND = "none"

_SHORT_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_LONG_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_LAG_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1)


class _Children:
    """The children for one (kind, backend)."""

    __slots__ = ("completion", "duration", "outcomes", "prompt", "queue", "ttft")

    def __init__(self, metrics: Metrics, kind: str, backend: str) -> None:
        self.duration = metrics.duration.labels(kind, backend)
        self.ttft = metrics.ttft.labels(kind, backend)
        self.queue = metrics.queue_wait.labels(backend)
        self.prompt = metrics.tokens.labels(backend, "prompt")
        self.completion = metrics.tokens.labels(backend, "completion")
        self.outcomes: dict[str, Counter] = {}


class Metrics:
    """All of the gateway's series."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        by = ("kind", "backend")
        self.requests = Counter(
            f"{PREFIX}requests", "Requests by how they ended.", (*by, "outcome"), registry=registry
        )
        self.in_flight = Gauge(
            f"{PREFIX}requests_in_flight",
            "Requests in the gateway, waiting ones included.",
            registry=registry,
        )
        self.duration = Histogram(
            f"{PREFIX}request_duration_seconds",
            "From the request's head to the last byte of its answer.",
            by,
            buckets=_LONG_S,
            registry=registry,
        )
        self.ttft = Histogram(
            f"{PREFIX}time_to_first_token_seconds",
            "From the request's head to the first content of a stream.",
            by,
            buckets=_LONG_S,
            registry=registry,
        )
        self.queue_wait = Histogram(
            f"{PREFIX}queue_wait_seconds",
            "Time that placed requests had waited for an engine.",
            ("backend",),
            buckets=_SHORT_S,
            registry=registry,
        )
        self.tokens = Counter(
            f"{PREFIX}tokens",
            "Tokens of served requests, cut streams included.",
            ("backend", "direction"),
            registry=registry,
        )
        self.upstream_failures = Counter(
            f"{PREFIX}upstream_failures",
            "Attempts that an engine failed, repaired ones included.",
            ("backend", "failure"),
            registry=registry,
        )
        self.loop_lag = Histogram(
            f"{PREFIX}event_loop_lag_seconds",
            "How late the event loop ran a timer.",
            buckets=_LAG_S,
            registry=registry,
        )
        self._children: dict[tuple[str, str], _Children] = {}

    def observe_router(self, snapshot: Callable[[], RouterSnapshot]) -> None:
        """Have the router's state read at each scrape."""
        self.registry.register(_RouterCollector(snapshot))

    def record(self, exchange: Exchange) -> None:
        """Count a request that has ended."""
        backend = exchange.backend or NO_BACKEND
        children = self._children.get((exchange.kind, backend))
        if children is None:
            children = _Children(self, exchange.kind, backend)
            self._children[exchange.kind, backend] = children
        counter = children.outcomes.get(exchange.outcome)
        if counter is None:
            counter = self.requests.labels(exchange.kind, backend, exchange.outcome)
            children.outcomes[exchange.outcome] = counter
        counter.inc()
        _observe(children, exchange)

    def count_upstream_failure(self, backend: str, failure: str) -> None:
        """Count an attempt that an engine failed; `failure` is a `Failure`'s value."""
        self.upstream_failures.labels(backend, failure).inc()

    def page(self) -> bytes:
        """Everything, in Prometheus' text format."""
        return generate_latest(self.registry)


def _observe(children: _Children, exchange: Exchange) -> None:
    children.duration.observe(exchange.duration_s)
    if exchange.attempts:
        children.queue.observe(exchange.queued_s)
    if exchange.first_token_s is not None:
        children.ttft.observe(exchange.first_token_s)
    if exchange.usage is not None:
        children.prompt.inc(exchange.usage.prompt_tokens)
        children.completion.inc(exchange.usage.completion_tokens)


class _RouterCollector(Collector):
    """The router's state, read only when asked for."""

    def __init__(self, snapshot: Callable[[], RouterSnapshot]) -> None:
        self._snapshot = snapshot

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        snapshot = self._snapshot()
        yield GaugeMetricFamily(
            f"{PREFIX}queue_depth", "Requests that wait for an engine.", value=snapshot.waiting
        )
        labels = ("backend", "endpoint")
        healthy = GaugeMetricFamily(f"{PREFIX}endpoint_healthy", "1 when it can serve.", labels=labels)
        in_flight = GaugeMetricFamily(f"{PREFIX}endpoint_in_flight", "Requests on it.", labels=labels)
        for replica in snapshot.replicas:
            values = (replica.endpoint.backend, replica.endpoint.id)
            healthy.add_metric(values, float(replica.healthy))
            in_flight.add_metric(values, replica.in_flight)
        yield healthy
        yield in_flight
