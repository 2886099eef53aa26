"""How a run is going, for whoever looks on: counts, and when bytes came. Nothing is parsed for it.

A `LiveCounter` looks at the records that the load client keeps anyway, once a second; between looks it costs
nothing. What it tells are not figures of the run: a *read* is about an event where the server sends each by
itself, and the first byte of a body is the first token only where no empty event comes before it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import msgspec

from sluice_bench.connection import Exchange
from sluice_bench.load_run import LoadRun

EVERY_S = 1.0

_HEAD_END = b"\r\n\r\n"


class LiveCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Since the start, but for the waits."""

    sent: int
    finished: int
    failed: int
    """Of the finished ones, as far as it shows without reading answers."""
    in_flight: int
    reads: int
    first_byte_ms: tuple[float, ...]
    """From schedule to the first byte of the body, of the answers that began since the last look."""

    @classmethod
    def together(cls, parts: Sequence[LiveCounts]) -> LiveCounts:
        """Of several processes."""
        return cls(
            sent=sum(part.sent for part in parts),
            finished=sum(part.finished for part in parts),
            failed=sum(part.failed for part in parts),
            in_flight=sum(part.in_flight for part in parts),
            reads=sum(part.reads for part in parts),
            first_byte_ms=tuple(wait for part in parts for wait in part.first_byte_ms),
        )


OnCounts = Callable[[LiveCounts], None]


class LiveCounter:
    """Looks at a run; a look costs a fraction of a microsecond for each request in flight or new."""

    def __init__(self, run: LoadRun) -> None:
        self._run = run
        self._seen = 0
        self._silent: list[Exchange] = []
        self._running: list[Exchange] = []
        self._finished = 0
        self._failed = 0
        self._reads = 0
        """Of finished requests."""

    def look(self) -> LiveCounts:
        """What is known now."""
        sent = len(self._run.exchanges)
        new = self._run.exchanges[self._seen : sent]
        self._seen = sent
        return LiveCounts(
            sent=sent,
            in_flight=self._run.in_flight,
            first_byte_ms=self._first_bytes_ms(new),
            reads=self._count_reads(new),
            finished=self._finished,
            failed=self._failed,
        )

    def _first_bytes_ms(self, new: Sequence[Exchange]) -> tuple[float, ...]:
        waiting = [*self._silent, *new]
        begun = {exchange: stamp for exchange in waiting if (stamp := _first_byte_ns(exchange)) is not None}
        self._silent = [exchange for exchange in waiting if exchange not in begun and exchange.end_ns is None]
        return tuple((stamp - exchange.scheduled_ns) / 1e6 for exchange, stamp in begun.items())

    def _count_reads(self, new: Sequence[Exchange]) -> int:
        active, self._running, running_reads = [*self._running, *new], [], 0
        for exchange in active:
            if exchange.end_ns is None:
                self._running.append(exchange)
                running_reads += len(exchange.reads)
            else:
                self._finished += 1
                self._failed += exchange.failure is not None
                self._reads += len(exchange.reads)
        return self._reads + running_reads


def _first_byte_ns(exchange: Exchange) -> int | None:
    """When the body began, if head and body came in one or two reads, as they do."""
    reads = exchange.reads
    if not reads:
        return None
    end = reads[0][1].find(_HEAD_END)
    if 0 <= end < len(reads[0][1]) - len(_HEAD_END):
        return reads[0][0]
    return reads[1][0] if len(reads) > 1 else None


@asynccontextmanager
async def reporting(run: LoadRun, on_counts: OnCounts | None) -> AsyncIterator[None]:
    """Tells `on_counts` once a second while the block runs, and once at its end."""
    if on_counts is None:
        yield
        return
    counter, tell = LiveCounter(run), on_counts

    async def look_on() -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            tell(counter.look())

    task = asyncio.create_task(look_on())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        tell(counter.look())
