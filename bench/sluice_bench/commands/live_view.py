"""A running load on a terminal: a small table, drawn anew once a second."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from rich.console import Console
from rich.live import Live
from rich.table import Table

from sluice_bench.formatting import number
from sluice_bench.runs.live import LiveCounts
from sluice_bench.stats.percentile import percentile_of

_SHOWN_S = 10
"""Waits of the last so many looks are shown together."""


class LiveView:
    """Turns counts into a table; keeps what the last seconds were like."""

    def __init__(self, what: str, total: int, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._what = what
        self._total = total
        self._clock_s = clock_s
        self._start_s = clock_s()
        self._looks: deque[tuple[float, int]] = deque(maxlen=_SHOWN_S)
        self._waits: deque[tuple[float, ...]] = deque(maxlen=_SHOWN_S)

    def table(self, counts: LiveCounts) -> Table:
        """The table for these counts."""
        now_s = self._clock_s()
        self._looks.append((now_s, counts.reads))
        self._waits.append(counts.first_byte_ms)
        waits = [wait for seconds in self._waits for wait in seconds]
        table = Table(box=None, padding=(0, 2, 0, 0))
        cells = (
            (self._what, f"{counts.finished}/{self._total}"),
            ("in flight", str(counts.in_flight)),
            ("failed", str(counts.failed)),
            ("TTFT p50 (first byte)", f"{number(percentile_of(waits, 0.5))} ms" if waits else "–"),
            ("reads/s, about tok/s", self._reads_per_s()),
            ("time", f"{now_s - self._start_s:.0f} s"),
        )
        for name, _ in cells:
            table.add_column(name, justify="right")
        table.add_row(*(value for _, value in cells))
        return table

    def _reads_per_s(self) -> str:
        (first_s, first), (last_s, last) = self._looks[0], self._looks[-1]
        return number((last - first) / (last_s - first_s)) if last_s > first_s else "–"


def live_display(view: LiveView, console: Console) -> tuple[Live, Callable[[LiveCounts], None]]:
    """What to enter while the load runs, and what to tell the counts. Draws only when told."""
    live = Live(console=console, transient=True, auto_refresh=False)
    return live, lambda counts: live.update(view.table(counts), refresh=True)
