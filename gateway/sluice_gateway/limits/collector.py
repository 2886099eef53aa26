"""A limiter's counters as Prometheus series. Few and fixed labels: modes, and kinds of limits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from sluice_gateway.limits.counters import LimiterCounters, LimiterMode

_PREFIX = "sluice_gateway_"


class LimiterCollector(Collector):
    """Reads the counters at each scrape."""

    def __init__(self, counters: LimiterCounters) -> None:
        self._counters = counters

    def describe(self) -> Iterable[Metric]:
        """Nothing: the series are made when they are read."""
        return []

    def collect(self) -> Iterable[Metric]:
        """All series as they stand."""
        counters = self._counters
        mode = GaugeMetricFamily(
            f"{_PREFIX}limiter_mode",
            "1 for where limits are decided: memory, redis, or degraded when Redis cannot be asked.",
            labels=("mode",),
        )
        for name in get_args(LimiterMode):
            mode.add_metric((name,), float(counters.mode == name))
        refused = CounterMetricFamily(
            f"{_PREFIX}rate_limited", "Requests refused, by the limit that bound.", labels=("limit",)
        )
        for limit, count in counters.refused.items():
            refused.add_metric((limit,), count)
        yield mode
        yield refused
        yield CounterMetricFamily(
            f"{_PREFIX}limiter_errors", "Calls to Redis that failed.", value=counters.errors
        )
        yield CounterMetricFamily(
            f"{_PREFIX}limiter_lost",
            "Settlements given up because too many subjects were waiting for Redis.",
            value=counters.lost,
        )
