"""The metrics of all workers, the dead included, as one page."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Sequence

from sluice_gateway.metrics_names import PREFIX
from sluice_gateway.supervisor.samples import Family, Sample, lasting, merge, render
from sluice_gateway.supervisor.worker_process import WorkerProcess

_ANSWER_S = 1.0
"""A worker that takes longer is shown as it last reported itself."""


class MetricsPage:
    """Knows what was counted by whom."""

    def __init__(self, workers: Callable[[], Collection[WorkerProcess]]) -> None:
        """`workers` gives those that live."""
        self._workers = workers
        self._gone: Sequence[Family] = ()
        self.replaced = 0
        """Workers that ended and were not asked to."""

    def keep(self, worker: WorkerProcess) -> None:
        """It is gone; what it has counted stays."""
        self._gone = merge([self._gone, lasting(worker.families)])

    async def render(self) -> bytes:
        """The page as it is now."""
        workers = [worker for worker in self._workers() if worker.is_started]
        await asyncio.gather(*map(_bring_up_to_date, workers))
        own = [
            _single("workers", "gauge", "Processes that serve.", "", len(workers)),
            _single("workers_replaced", "counter", "Processes that died.", "_total", self.replaced),
        ]
        # A worker that ended meanwhile is among the gone: it is looked up again.
        living = [worker.families for worker in self._workers()]
        return render(merge([self._gone, *living, own]))


async def _bring_up_to_date(worker: WorkerProcess) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_ANSWER_S):
            await worker.collect()


def _single(name: str, kind: str, meaning: str, suffix: str, value: float) -> Family:
    return Family(PREFIX + name, kind, meaning, [Sample(PREFIX + name + suffix, (), float(value))])
