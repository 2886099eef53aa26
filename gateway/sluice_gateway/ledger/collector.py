"""The ledger's state for Prometheus, read at each scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from sluice_gateway.ledger.ledger import LedgerSnapshot

_PREFIX = "sluice_gateway_ledger_"


class LedgerCollector(Collector):
    """Five series without labels."""

    def __init__(self, snapshot: Callable[[], LedgerSnapshot]) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterable[Metric]:
        """See `Collector`."""
        now = self._snapshot()
        yield CounterMetricFamily(_PREFIX + "rows", "Requests written down.", value=now.recorded)
        yield CounterMetricFamily(
            _PREFIX + "rows_stored", "Rows that reached the database.", value=now.stored
        )
        yield CounterMetricFamily(_PREFIX + "rows_lost", "Rows dropped at a bound.", value=now.lost)
        yield CounterMetricFamily(
            _PREFIX + "store_failures", "Tries to store that failed.", value=now.store_failures
        )
        yield GaugeMetricFamily(
            _PREFIX + "journal_bytes", "Rows that wait for the database.", value=now.journal_bytes
        )
