"""Reading gauges out of a Prometheus text page.

Two rules keep readings honest. A missing gauge is unknown, never zero. An engine with several ranks gives one
series each: counts are summed, names are matched whole, so that `..._waiting` is never confused with
`..._waiting_by_reason`.
"""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families


class MetricsPage:
    """The samples of one page, by name."""

    def __init__(self, text: str) -> None:
        """Parse `text`. Raises `ValueError` when it is not in Prometheus' text format."""
        self._values: dict[str, list[float]] = {}
        self._labels: dict[str, dict[str, str]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                self._values.setdefault(sample.name, []).append(sample.value)
                self._labels[sample.name] = sample.labels

    def total(self, name: str) -> float | None:
        """Sum over all series called exactly `name`; `None` when there is none."""
        values = self._values.get(name)
        return sum(values) if values else None

    def count(self, name: str) -> int | None:
        """`total`, as a whole number."""
        value = self.total(name)
        return None if value is None else int(value)

    def label(self, name: str, label: str) -> str | None:
        """A label of the last series called `name`; `None` when there is none."""
        return self._labels.get(name, {}).get(label)

    def ratio(self, part: str, whole: str) -> float | None:
        """`part` over `whole`, between 0 and 1; `None` when either is unknown or the whole is empty."""
        used, size = self.total(part), self.total(whole)
        return None if used is None or not size else min(1.0, max(0.0, used / size))
