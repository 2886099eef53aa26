"""Counters and histograms cheap enough to be updated several times a request.

One event loop writes them, so they need no lock, which the Prometheus client takes for each update. They
become Prometheus families only when a page is asked for.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class Histogram:
    """Observations of one labelled series."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        """`bounds`: inclusive upper ends of all buckets but the last, rising."""
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one observation."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value


class HistogramFamily(Collector):
    """All series of one histogram."""

    def __init__(self, name: str, meaning: str, labels: Sequence[str], bounds: Sequence[float]) -> None:
        self._name, self._meaning, self._labels, self._bounds = name, meaning, labels, bounds
        self._series: dict[tuple[str, ...], Histogram] = {}

    def labels(self, *values: str) -> Histogram:
        """The series with these label values. Keep it: the look-up costs more than an update."""
        found = self._series.get(values)
        if found is None:
            found = self._series[values] = Histogram(self._bounds)
        return found

    def collect(self) -> Iterable[Metric]:
        """See `Collector`."""
        family = HistogramMetricFamily(self._name, self._meaning, labels=self._labels)
        ends = [*map(floatToGoString, self._bounds), "+Inf"]
        for values, series in self._series.items():
            buckets, seen = [], 0
            for end, count in zip(ends, series.counts, strict=True):
                seen += count
                buckets.append((end, float(seen)))
            family.add_metric(values, buckets, series.total)
        yield family


class Counter:
    """One labelled series."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0


class CounterFamily(Collector):
    """All series of one counter."""

    def __init__(self, name: str, meaning: str, labels: Sequence[str]) -> None:
        self._name, self._meaning, self._labels = name, meaning, labels
        self._series: dict[tuple[str, ...], Counter] = {}

    def labels(self, *values: str) -> Counter:
        """The series with these label values. Keep it: the look-up costs more than an update."""
        found = self._series.get(values)
        if found is None:
            found = self._series[values] = Counter()
        return found

    def collect(self) -> Iterable[Metric]:
        """See `Collector`."""
        family = CounterMetricFamily(self._name, self._meaning, labels=self._labels)
        for values, series in self._series.items():
            family.add_metric(values, series.value)
        yield family
