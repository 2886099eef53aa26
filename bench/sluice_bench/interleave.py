"""Requests one at a time, to several servers in turn: latencies that can be held against each other.

In each round every server is asked once, in a fresh random order, over a connection of its own that stays
open; nothing else is in flight. So the differences within a round are between servers that met the same
state of the machine, and none of them always comes after the same other one.

It uses the load client's connections and stamps; a latency is from `written_ns` to `end_ns`.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence

import msgspec

from sluice_bench.connection import Connection, Exchange
from sluice_bench.load_run import frozen_gc, new_event_loop
from sluice_bench.records import Failure
from sluice_bench.target import Target, WireRequest

_PATIENCE_S = 30.0


class Leg(msgspec.Struct, frozen=True):
    """One server, and what it is asked, one request a round."""

    name: str
    target: Target
    requests: Sequence[WireRequest]


class _Line:
    """The connection to one server."""

    def __init__(self, leg: Leg, clock_ns: Callable[[], int]) -> None:
        self.leg = leg
        self.clock_ns = clock_ns
        self.exchanges: list[Exchange] = []
        self._connection: Connection | None = None
        self._ended: asyncio.Future[None] | None = None

    async def ask(self, index: int) -> None:
        """Send request `index` and wait for the end of its answer, at most `_PATIENCE_S`."""
        exchange = Exchange(index, self.leg.requests[index], self.clock_ns())
        exchange.dispatched_ns = exchange.scheduled_ns
        self.exchanges.append(exchange)
        try:
            connection = await self._usable_connection()
        except OSError as error:
            self.finish(exchange, self.clock_ns(), Failure.CONNECT_FAILED, str(error), None)
            return
        exchange.connected_ns = self.clock_ns()
        loop = asyncio.get_running_loop()
        ended = self._ended = loop.create_future()
        timer = loop.call_later(_PATIENCE_S, self._give_up, exchange, connection)
        connection.start(exchange)
        await ended
        timer.cancel()

    async def _usable_connection(self) -> Connection:
        connection = self._connection
        if connection is None or not connection.usable:
            target = self.leg.target
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(lambda: Connection(self), target.host, target.port)
            self._connection = connection
        return connection

    def _give_up(self, exchange: Exchange, connection: Connection) -> None:
        connection.abort()
        self.finish(exchange, self.clock_ns(), Failure.TIMEOUT, f"no end within {_PATIENCE_S:g} s", None)

    def finish(
        self,
        exchange: Exchange,
        now: int,
        failure: Failure | None,
        detail: str,
        connection: Connection | None,
    ) -> None:
        """Stamp the end, and let `ask` go on."""
        exchange.end_ns, exchange.failure, exchange.detail = now, failure, detail
        exchange.connection = None
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)

    def drop(self, connection: Connection) -> None:
        """A connection is gone; the next request opens another."""
        if connection is self._connection:
            self._connection = None

    def close(self) -> None:
        """Drop the connection."""
        if self._connection is not None:
            self._connection.abort()


def run_interleaved(
    legs: Sequence[Leg], rounds: int, seed: int, clock_ns: Callable[[], int] = time.perf_counter_ns
) -> dict[str, list[Exchange]]:
    """Ask every server once a round; the answers by name, in the order of the rounds."""

    async def main() -> dict[str, list[Exchange]]:
        lines = [_Line(leg, clock_ns) for leg in legs]
        order, source = list(lines), random.Random(seed)
        for index in range(rounds):
            source.shuffle(order)
            for line in order:
                await line.ask(index)
        for line in lines:
            line.close()
        return {line.leg.name: line.exchanges for line in lines}

    with frozen_gc(), asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(main())
