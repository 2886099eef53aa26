"""What the gateway counts, for Prometheus.

A registry of its own, nothing global. Label values come from the configuration and from enums, never from a
client, so that a scanner of paths or models adds no series. What is updated with every request is a `tally`;
the rest are the Prometheus client's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client import Histogram as PrometheusHistogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from sluice_gateway import tally
from sluice_gateway.exchange import Exchange
from sluice_gateway.metrics_names import PREFIX
from sluice_router.snapshot import RouterSnapshot

NO_BACKEND = "none"

_SHORT_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_LONG_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_OVERHEAD_S = (0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.1)
_LAG_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1)


class _Children:
    """The series of one (kind, backend), looked up once."""

    __slots__ = ("cached", "completion", "cost", "duration", "outcomes", "prompt", "queue", "ttft")

    def __init__(self, metrics: Metrics, kind: str, backend: str) -> None:
        self.duration = metrics.duration.labels(kind, backend)
        self.ttft = metrics.ttft.labels(kind, backend)
        self.queue = metrics.queue_wait.labels(backend)
        self.prompt = metrics.tokens.labels(backend, "prompt")
        self.cached = metrics.tokens.labels(backend, "cached")
        self.completion = metrics.tokens.labels(backend, "completion")
        self.cost = metrics.cost.labels(backend)
        self.outcomes: dict[str, tally.Counter] = {}


class Metrics:
    """All of the gateway's series."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        by = ("kind", "backend")
        self.requests = self._counter("requests", "Requests by how they ended.", (*by, "outcome"))
        self.duration = self._histogram(
            "request_duration_seconds", "From the request's head to the last byte of its answer.", by, _LONG_S
        )
        self.ttft = self._histogram(
            "time_to_first_token_seconds",
            "From the request's head to the first content of a stream.",
            by,
            _LONG_S,
        )
        self.queue_wait = self._histogram(
            "queue_wait_seconds",
            "Time that placed requests had waited for an engine.",
            ("backend",),
            _SHORT_S,
        )
        self.overhead = self._histogram(
            "overhead_seconds",
            "Plain answers: time that was neither spent in the queue nor waiting for engines.",
            (),
            _OVERHEAD_S,
        ).labels()
        self.tokens = self._counter(
            "tokens",
            "Tokens of served requests, cut streams included; cached ones are among the prompt's.",
            ("backend", "direction"),
        )
        self.cost = self._counter(
            "cost", "Money for served requests, in the price table's currency.", ("backend",)
        )
        self.upstream_failures = Counter(
            f"{PREFIX}upstream_failures",
            "Attempts that an engine failed, repaired ones included.",
            ("backend", "failure"),
            registry=self.registry,
        )
        self.resumptions = Counter(
            f"{PREFIX}resumptions",
            "Streams whose engine died amid its answer, by what became of them.",
            ("result",),
            registry=self.registry,
        )
        self.loop_lag = PrometheusHistogram(
            f"{PREFIX}event_loop_lag_seconds",
            "How late the event loop ran a timer.",
            buckets=_LAG_S,
            registry=self.registry,
        )
        self._children: dict[tuple[str, str], _Children] = {}

    def _counter(self, name: str, meaning: str, labels: Sequence[str]) -> tally.CounterFamily:
        family = tally.CounterFamily(PREFIX + name, meaning, labels)
        self.registry.register(family)
        return family

    def _histogram(
        self, name: str, meaning: str, labels: Sequence[str], bounds: Sequence[float]
    ) -> tally.HistogramFamily:
        family = tally.HistogramFamily(PREFIX + name, meaning, labels, bounds)
        self.registry.register(family)
        return family

    def observe_in_flight(self, count: Callable[[], int]) -> None:
        """Have the number of requests on their way read at each scrape."""
        gauge = Gauge(
            f"{PREFIX}requests_in_flight",
            "Requests in the gateway, waiting ones included.",
            registry=self.registry,
        )
        gauge.set_function(count)

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
        outcome = exchange.outcome
        counter = children.outcomes.get(outcome)
        if counter is None:
            counter = children.outcomes[outcome] = self.requests.labels(exchange.kind, backend, outcome)
        counter.value += 1
        _observe(children, exchange)
        if not exchange.stream:
            own_s = exchange.duration_s - exchange.queued_s - exchange.upstream_s
            self.overhead.observe(own_s)

    def count_upstream_failure(self, backend: str, failure: str) -> None:
        """Count an attempt that an engine failed; `failure` is a `Failure`'s value."""
        self.upstream_failures.labels(backend, failure).inc()

    def count_resumption(self, result: str) -> None:
        """Count a stream that was cut; `result` is one of `resumptions.RESULTS`."""
        self.resumptions.labels(result).inc()

    def page(self) -> bytes:
        """Everything, in Prometheus' text format."""
        return generate_latest(self.registry)


def _observe(children: _Children, exchange: Exchange) -> None:
    children.duration.observe(exchange.duration_s)
    if exchange.attempts:
        children.queue.observe(exchange.queued_s)
    if exchange.first_token_s is not None:
        children.ttft.observe(exchange.first_token_s)
    usage = exchange.usage
    if usage is not None:
        children.prompt.value += usage.prompt_tokens
        children.completion.value += usage.completion_tokens
        children.cached.value += usage.cached_tokens
        children.cost.value += exchange.cost


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
        cached = CounterMetricFamily(
            f"{PREFIX}prefix_tokens",
            "Prompt tokens that placement expected in the engine's cache, and that the engine found there.",
            labels=(*labels, "which"),
        )
        for replica in snapshot.replicas:
            values = (replica.endpoint.backend, replica.endpoint.id)
            healthy.add_metric(values, float(replica.healthy))
            in_flight.add_metric(values, replica.in_flight)
            cached.add_metric((*values, "expected"), replica.expected_tokens)
            cached.add_metric((*values, "cached"), replica.cached_tokens)
        hedges = CounterMetricFamily(
            f"{PREFIX}hedges",
            "Second attempts by what became of them, and those that there was no room or budget for.",
            labels=("result",),
        )
        for result, count in snapshot.hedges.items():
            hedges.add_metric((result.value,), count)
        yield hedges
        yield healthy
        yield in_flight
        yield cached
