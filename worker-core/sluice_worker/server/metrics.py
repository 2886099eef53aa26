"""Prometheus metrics of one worker, all named `sluice_worker_*`, in a registry of their own.

Gauges and counters of the engine are read from its last step's statistics when the page is asked for;
latencies are observed by the server as tokens arrive. Times are seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from sluice_worker.outputs import EngineStats, ModelInfo, SequenceDelta

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
_TTFT_BUCKETS_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60)
_ITL_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2)
_DURATION_BUCKETS_S = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120, 300)


class Metrics:
    """What the server counts, and the page that shows it."""

    def __init__(self, stats: Callable[[], EngineStats], model_info: Callable[[], ModelInfo | None]) -> None:
        """`stats` and `model_info` are asked when the page is made."""
        self._registry = CollectorRegistry()
        self._registry.register(_EngineCollector(stats, model_info))
        self.requests = Counter(
            "sluice_worker_requests",
            "Generation requests by how they ended: completed, rejected, failed or cancelled.",
            ["endpoint", "outcome"],
            registry=self._registry,
        )
        self.in_flight = Gauge(
            "sluice_worker_http_requests_in_flight",
            "Generation requests being handled, from their first byte to their last.",
            registry=self._registry,
        )
        self._first_token = self._histogram(
            "time_to_first_token_seconds", "From a request's arrival to its first token.", _TTFT_BUCKETS_S
        )
        self._inter_token = self._histogram(
            "inter_token_latency_seconds", "Between two tokens of one sequence.", _ITL_BUCKETS_S
        )
        self.duration = self._histogram(
            "request_duration_seconds", "Generation requests from arrival to end.", _DURATION_BUCKETS_S
        )

    def page(self) -> bytes:
        """The page in Prometheus' text format."""
        return generate_latest(self._registry)

    def meter(self, arrived_s: float, clock: Callable[[], float]) -> TokenMeter:
        """A meter for one request that arrived at `arrived_s` on `clock`."""
        return TokenMeter(arrived_s, clock, self._first_token, self._inter_token)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"sluice_worker_{name}", text, buckets=buckets, registry=self._registry)


class TokenMeter:
    """Observes when the tokens of one request arrive."""

    def __init__(
        self, arrived_s: float, clock: Callable[[], float], first_token: Histogram, inter_token: Histogram
    ) -> None:
        self._arrived_s = arrived_s
        self._clock = clock
        self._first_token = first_token
        self._inter_token = inter_token
        self._last_s: dict[str, float] = {}

    def elapsed_s(self) -> float:
        """Seconds since the request arrived."""
        return self._clock() - self._arrived_s

    def observe(self, delta: SequenceDelta) -> None:
        """Tokens have arrived; several at once count as evenly spread."""
        count = len(delta.new_token_ids)
        if count == 0:
            return
        now_s = self._clock()
        last_s = self._last_s.get(delta.request_id)
        if last_s is not None:
            for _ in range(count):
                self._inter_token.observe((now_s - last_s) / count)
        elif not self._last_s:
            self._first_token.observe(now_s - self._arrived_s)
        self._last_s[delta.request_id] = now_s


class _EngineCollector(Collector):
    """Turns the engine's statistics into metrics when asked."""

    def __init__(self, stats: Callable[[], EngineStats], model_info: Callable[[], ModelInfo | None]) -> None:
        self._stats = stats
        self._model_info = model_info

    def collect(self) -> Iterator[Metric]:
        """One metric after another."""
        stats = self._stats()
        ratio = stats.kv_blocks_used / stats.kv_blocks_total if stats.kv_blocks_total else 0.0
        yield _gauge("requests_running", "Sequences in the running batch.", stats.num_running)
        yield _gauge("requests_waiting", "Sequences waiting for a place in the batch.", stats.num_waiting)
        yield _gauge(
            "waiting_uncached_tokens",
            "Tokens of waiting sequences that no cached prefix covers.",
            stats.waiting_uncached_tokens,
        )
        yield _gauge("kv_usage_ratio", "Share of KV blocks that running sequences hold, 0 to 1.", ratio)
        yield _gauge("kv_blocks_total", "KV blocks in all.", stats.kv_blocks_total)
        yield _gauge("kv_blocks_used", "KV blocks that running sequences hold.", stats.kv_blocks_used)
        yield _gauge("kv_blocks_cached", "Free KV blocks that hold a prefix.", stats.kv_blocks_cached)
        yield _gauge(
            "kv_tokens_reserved",
            "Tokens that the blocks of running sequences hold room for.",
            stats.kv_tokens_reserved,
        )
        yield _gauge("kv_tokens_held", "Tokens that are in them.", stats.kv_tokens_held)
        yield _counter("prompt_tokens", "Prompt tokens, computed or cached.", stats.prompt_tokens_total)
        yield _counter("generation_tokens", "Tokens generated.", stats.generation_tokens_total)
        yield _counter(
            "prefix_cache_hit_tokens", "Prompt tokens from the prefix cache.", stats.cached_tokens_total
        )
        yield _counter(
            "preemptions", "Sequences put back to wait for lack of blocks.", stats.preemptions_total
        )
        yield _counter("steps", "Engine steps.", stats.steps_total)
        yield _counter(
            "sequence_steps",
            "Sequences in each step, added up: over steps, the mean batch.",
            stats.sequence_steps_total,
        )
        yield _counter(
            "kv_reserved_steps", "kv_tokens_reserved of each step, added up.", stats.kv_reserved_steps_total
        )
        yield _counter(
            "kv_held_steps",
            "kv_tokens_held of each step, added up: over kv_reserved_steps, the mean utilisation.",
            stats.kv_held_steps_total,
        )
        info = self._model_info()
        if info is not None:
            yield _gauge("requests_max", "Sequences that the batch has room for.", info.max_num_seqs)
            yield _gauge("kv_block_tokens", "Tokens of one KV block.", info.block_size)
            yield _info(info)


def _info(info: ModelInfo) -> Metric:
    labels = ["architecture", "device", "dtype", "kernels", "quantization"]
    family = GaugeMetricFamily("sluice_worker_model_info", "1, with what is loaded.", labels=labels)
    family.add_metric([str(getattr(info, label)) for label in labels], 1)
    return family


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"sluice_worker_{name}", text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"sluice_worker_{name}", text, value=value)
