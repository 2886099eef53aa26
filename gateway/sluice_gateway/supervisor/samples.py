"""Metrics as plain values, and how those of several processes become one page.

Counters and histograms add up, also those of processes that are gone. A gauge is what it says of the living:
mostly a sum; what is no quantity is named in `_GAUGES`. The result has the families and labels that a lone
process has, so that dashboards need not know how many there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from sluice_gateway.metrics_names import PREFIX

_GAUGES: dict[str, Callable[[float, float], float]] = {
    f"{PREFIX}endpoint_healthy": min,
    f"{PREFIX}limiter_mode": max,
}
"""Healthy is what every process finds healthy; a mode is shown when any process is in it."""
_ADDED_UP = frozenset({"counter", "histogram", "summary"})


class Sample(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One line of a page."""

    name: str
    labels: tuple[tuple[str, str], ...]
    value: float


class Family(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """All lines of one metric."""

    name: str
    kind: str
    meaning: str
    samples: list[Sample]


def collect(registry: Collector) -> list[Family]:
    """The values of everything in a registry, now."""
    return [
        Family(
            metric.name,
            metric.type,
            metric.documentation,
            [Sample(s.name, tuple(s.labels.items()), float(s.value)) for s in metric.samples],
        )
        for metric in registry.collect()
    ]


def lasting(families: Iterable[Family]) -> list[Family]:
    """What still counts when its process is gone."""
    return [family for family in families if family.kind in _ADDED_UP]


def merge(reports: Iterable[Sequence[Family]]) -> list[Family]:
    """One report out of several."""
    merged: dict[str, tuple[Family, dict[tuple[str, tuple[tuple[str, str], ...]], float]]] = {}
    for report in reports:
        for family in report:
            _, values = merged.setdefault(family.name, (family, {}))
            for sample in family.samples:
                key = (sample.name, sample.labels)
                known = values.get(key)
                combine = _combination(family, sample)
                values[key] = sample.value if known is None else combine(known, sample.value)
    return [
        Family(f.name, f.kind, f.meaning, [Sample(name, labels, v) for (name, labels), v in values.items()])
        for f, values in merged.values()
    ]


def _combination(family: Family, sample: Sample) -> Callable[[float, float], float]:
    if family.kind in _ADDED_UP and sample.name.endswith("_created"):
        return min
    return _GAUGES.get(family.name, _add)


def _add(one: float, other: float) -> float:
    return one + other


def render(families: Iterable[Family]) -> bytes:
    """Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_Given(families))
    return generate_latest(registry)


class _Given(Collector):
    """Families as they were given."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        for family in self._families:
            metric = Metric(family.name, family.meaning, family.kind)
            for sample in family.samples:
                metric.add_sample(sample.name, dict(sample.labels), sample.value)
            yield metric
