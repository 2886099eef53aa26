"""The configurations in force: the present one, and those before it that still have requests.

A request belongs to one generation from its start to its end: it was admitted by that one's limits on queue
and engines, and it is answered by its engines. Nothing of the old is changed by the new.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from sluice_gateway.fleet import Fleet
from sluice_gateway.pipeline import Pipeline


@dataclass(frozen=True, eq=False)
class Generation:
    """What one configuration made."""

    number: int
    """Counted from 1."""
    fleet: Fleet
    """Shared with the generation before when nothing about engines changed."""
    pipeline: Pipeline


class Generations:
    """All that are alive."""

    def __init__(self, first: Generation, retired: Callable[[Generation], None]) -> None:
        """`retired` hears of every old generation that has ended."""
        self.current = first
        self._retired = retired
        self._old: list[Generation] = []
        self._ending: set[asyncio.Task[None]] = set()

    @property
    def in_flight(self) -> int:
        """Requests on their way, in all of them."""
        return sum(generation.pipeline.in_flight for generation in self._alive())

    async def replace(self, new: Generation) -> None:
        """New requests go to `new`; the present generation ends in its own time."""
        old, self.current = self.current, new
        self._old.append(old)
        if old.fleet is not new.fleet:
            await old.fleet.stop_probing()
        task = asyncio.create_task(self._end(old))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def report(self, engine: str, problem: str | None) -> None:
        """A managed engine cannot serve, or may be able to from now on (`None`)."""
        for generation in self._alive():
            if problem is None:
                generation.fleet.health.report_suspect(engine)
            else:
                generation.fleet.health.report_unreachable(engine, problem)

    def drain(self) -> None:
        """Refuse new requests from here on."""
        for generation in self._alive():
            generation.pipeline.drain()

    def interrupt_all(self) -> None:
        """End every request on its way with an error."""
        for generation in self._alive():
            generation.pipeline.interrupt_all()

    async def wait_until_idle(self, limit_s: float) -> None:
        """Return when no request is on its way, or after `limit_s`."""
        waits = (generation.pipeline.wait_until_idle(limit_s) for generation in self._alive())
        await asyncio.gather(*waits)

    async def aclose(self) -> None:
        """After the last request: close every fleet."""
        for task in self._ending:
            task.cancel()
        await asyncio.gather(*self._ending, return_exceptions=True)
        fleets = {id(generation.fleet): generation.fleet for generation in self._alive()}
        self._old.clear()
        for fleet in fleets.values():
            await fleet.aclose()

    async def _end(self, old: Generation) -> None:
        await old.pipeline.wait_until_idle(inf)
        if all(other.fleet is not old.fleet for other in self._alive() if other is not old):
            await old.fleet.aclose()
        self._old.remove(old)
        self._retired(old)

    def _alive(self) -> list[Generation]:
        return [*self._old, self.current]
