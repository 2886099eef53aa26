"""Static batching: what waits when the engine is free runs together, and nothing joins until all is done.

Rows with different sampling do not share a batch, nor do rows with a seed, whose samples would depend on
their neighbours. First come, first served: the oldest row decides what the next batch samples by.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from sluice_engines.baseline.runtime import Row, Runtime


class Batcher:
    """Feeds one runtime. Its counts are of rows."""

    def __init__(
        self, runtime: Runtime, *, wait_s: float, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        """`wait_s` is how long a batch that is not full waits for more."""
        self._runtime = runtime
        self._wait_s = wait_s
        self._sleep = sleep
        self._waiting: list[Row] = []
        self._arrived = asyncio.Event()
        self.running = 0

    @property
    def waiting(self) -> int:
        """Rows that wait for the engine."""
        return len(self._waiting)

    def add(self, row: Row) -> None:
        """Have a row generated. Called in the event loop."""
        self._waiting.append(row)
        self._arrived.set()

    async def run(self) -> None:
        """Generate, until cancelled."""
        while True:
            await self._arrived.wait()
            if len(self._waiting) < self._runtime.max_batch and self._wait_s > 0:
                await self._sleep(self._wait_s)
            batch = self._next_batch()
            if batch:
                await self._generate(batch)

    async def _generate(self, batch: Sequence[Row]) -> None:
        self.running = len(batch)
        try:
            await asyncio.to_thread(self._runtime.generate, batch)
        except Exception as error:  # the library may fail in any way; the next batch may not
            for row in batch:
                row.finish(f"error: {type(error).__name__}: {error}")
        finally:
            self.running = 0
        for row in batch:
            row.finish("length")

    def _next_batch(self) -> list[Row]:
        waiting = [row for row in self._waiting if not row.done]
        batch = take_batch(waiting, self._runtime.max_batch)
        self._waiting = [row for row in waiting if row not in batch]
        if not self._waiting:
            self._arrived.clear()
        return batch


def take_batch(waiting: Sequence[Row], room: int) -> list[Row]:
    """The oldest row, and those behind it that can share its batch."""
    if not waiting:
        return []
    first = waiting[0].sampling
    if first.seed is not None and first.temperature > 0:
        return [waiting[0]]
    return [row for row in waiting if row.sampling == first][:room]
