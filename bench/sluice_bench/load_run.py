"""The load client: sends requests on a schedule and records what came when.

The hot path is `connection.py`. The invariants of a run:

- An open loop's schedule exists before the run, and sending never waits for an answer or for a free
  connection: there is no client-side limit on connections, so no hidden queue.
- Every scheduled request ends as one finished `Exchange`, whatever happens, also at the hard stop.
- The collector of garbage is frozen while a run lasts.

Knows nothing of what a request means.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from sluice_bench.connection import Connection, Exchange
from sluice_bench.due_timer import DueTimer, due_timer
from sluice_bench.loops import ClosedLoop, LoadPlan, OpenLoop, SessionLoop
from sluice_bench.records import Failure
from sluice_bench.target import Target

SWEEP_S = 0.1
"""How often requests over their time limit are looked for."""

_TRIAL_S = 2.0
"""For each address of a name with several."""

_HANDSHAKES_AT_ONCE = 32
"""Before a run: one after another takes a round trip each, all together overrun a server's backlog."""


class LoadRun:
    """Carries out one `LoadPlan`; use once."""

    def __init__(
        self,
        plan: LoadPlan,
        clock_ns: Callable[[], int] = time.perf_counter_ns,
        on_progress: Callable[[int], None] | None = None,
    ) -> None:
        self.clock_ns = clock_ns
        self._plan = plan
        self._on_progress = on_progress
        self._exchanges: list[Exchange] = []
        self._idle: list[Connection] = []
        self._connections: set[Connection] = set()
        self._in_flight: set[Exchange] = set()
        self._connecting: dict[Exchange, asyncio.Task[None]] = {}
        self._awaited: dict[Exchange, asyncio.Future[None]] = {}
        """By whom the end of a request is waited for: users of a `SessionLoop`."""
        self._finished_count = 0
        self._stopped = asyncio.Event()
        self._prepared = False
        self._sends = True
        self._address = ("", 0)
        self._start_ns = 0
        self._defect: BaseException | None = None
        self._tls = ssl.create_default_context() if plan.target.tls else None

    @property
    def exchanges(self) -> Sequence[Exchange]:
        """What was dispatched so far, in order; grows while the run lasts."""
        return self._exchanges

    @property
    def in_flight(self) -> int:
        """Requests that were dispatched and have not ended."""
        return len(self._in_flight)

    async def run(self, start_ns: int | None = None) -> list[Exchange]:
        """Send everything and wait for it. Returns one exchange per request, in request order; after
        `stop_sending`, of those that were sent.

        `start_ns`: the instant that an open loop's schedule counts from and a closed one begins at; by
        default now, once connections are open. Raises `OSError` when `prepare` does.
        """
        await self.prepare()
        self._start_ns = self.clock_ns() if start_ns is None else start_ns
        loop = asyncio.get_running_loop()
        wait_s = max(0, self._start_ns - self.clock_ns()) / 1e9
        hard_stop = loop.call_later(wait_s + self._plan.hard_stop_s, self.stop)
        helpers = [asyncio.create_task(self._sweep()), asyncio.create_task(self._send())]
        helpers[-1].add_done_callback(self._watch)
        try:
            if self._plan.requests:
                await self._stopped.wait()
        finally:
            hard_stop.cancel()
            await self._clean_up(helpers)
        if self._defect is not None:
            raise self._defect
        return sorted(self._exchanges, key=lambda exchange: exchange.index)

    def stop_sending(self) -> None:
        """Send nothing more and end with what is in flight, as a run of fewer requests would. Idempotent."""
        self._sends = False
        if not self._in_flight:
            self._stopped.set()

    def stop(self) -> None:
        """Stop now: cut off what is in flight, mark what was never sent. Idempotent."""
        if self._stopped.is_set():
            return
        self._stopped.set()
        now = self.clock_ns()
        for exchange in list(self._in_flight):
            self._give_up(exchange, Failure.CUT_OFF, "in flight at the hard stop")
        sent = {exchange.index for exchange in self._exchanges}
        planned = len(self._plan.requests) if self._sends else 0
        for index in (place for place in range(planned) if place not in sent):
            exchange = Exchange(index, self._plan.requests[index], self._due_ns(index, now))
            exchange.failure, exchange.detail, exchange.end_ns = Failure.NOT_SENT, "hard stop", now
            self._exchanges.append(exchange)

    def _due_ns(self, index: int, now: int) -> int:
        loop = self._plan.loop
        return self._start_ns + loop.offsets_ns[index] if isinstance(loop, OpenLoop) else now

    async def prepare(self) -> None:
        """Resolve the name and open warm connections, so that neither is in anyone's latency. Idempotent.

        Raises `OSError` when a connection cannot be opened.
        """
        if self._prepared:
            return
        self._prepared = True
        self._address = await _address_of(self._plan.target)
        while (missing := self._plan.warm_connections - len(self._idle)) > 0:
            await self._open_idle(min(missing, _HANDSHAKES_AT_ONCE))

    def abandon(self) -> None:
        """Close what `prepare` opened, when there will be no run."""
        for connection in list(self._connections):
            connection.abort()

    async def _open_idle(self, count: int) -> None:
        """Raises `OSError` when one cannot be opened; none stays open then."""
        opened = await asyncio.gather(*(self._connect() for _ in range(count)), return_exceptions=True)
        for found in opened:
            if isinstance(found, BaseException):
                self.abandon()
                raise found
            self._idle.append(found)

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        host, port = self._address
        server_hostname = self._plan.target.host if self._tls else None
        _, connection = await loop.create_connection(
            lambda: Connection(self), host, port, ssl=self._tls, server_hostname=server_hostname
        )
        self._connections.add(connection)
        return connection

    def _start_workers(self, concurrency: int) -> None:
        for _ in range(min(concurrency, len(self._plan.requests))):
            self._dispatch_next(self.clock_ns())

    async def _send(self) -> None:
        """An open loop's requests, each at its time; a closed loop's first ones; all of sessions."""
        timer, loop = due_timer(self.clock_ns), self._plan.loop
        try:
            if isinstance(loop, OpenLoop):
                await self._pace(loop.offsets_ns, timer)
                return
            await timer.until(self._start_ns)
            if isinstance(loop, ClosedLoop):
                self._start_workers(loop.concurrency)
            else:
                waiting = iter(loop.sessions)
                await asyncio.gather(*(self._converse(loop, waiting) for _ in range(loop.concurrency)))
        finally:
            timer.close()

    async def _converse(self, loop: SessionLoop, waiting: Iterator[tuple[int, ...]]) -> None:
        """One user: conversation after conversation, turn after turn."""
        timer, free_ns = due_timer(self.clock_ns), self._start_ns
        try:
            for session in waiting:
                for place in session:
                    due = free_ns + loop.think_ns[place]
                    await timer.until(due)
                    if self._stopped.is_set() or not self._sends:
                        return
                    free_ns = await self._ended(self._dispatch(place, due))
        finally:
            timer.close()

    async def _ended(self, exchange: Exchange) -> int:
        """When it ended."""
        if exchange.end_ns is None:
            self._awaited[exchange] = asyncio.get_running_loop().create_future()
            await self._awaited[exchange]
        assert exchange.end_ns is not None
        return exchange.end_ns

    async def _pace(self, offsets_ns: Sequence[int], timer: DueTimer) -> None:
        """Late ones leave at once, keeping their scheduled time."""
        for offset in offsets_ns[: len(self._plan.requests)]:
            due = self._start_ns + offset
            await timer.until(due)
            if self._stopped.is_set() or not self._sends:
                return
            self._dispatch_next(due)

    def _dispatch_next(self, scheduled_ns: int) -> None:
        self._dispatch(len(self._exchanges), scheduled_ns)

    def _dispatch(self, index: int, scheduled_ns: int) -> Exchange:
        exchange = Exchange(index, self._plan.requests[index], scheduled_ns)
        self._exchanges.append(exchange)
        self._in_flight.add(exchange)
        exchange.dispatched_ns = self.clock_ns()
        connection = self._idle_connection()
        if connection is None:
            task = asyncio.create_task(self._connect_and_start(exchange))
            task.add_done_callback(self._watch)
            self._connecting[exchange] = task
        else:
            exchange.reused = True
            exchange.connected_ns = exchange.dispatched_ns
            connection.start(exchange)
        return exchange

    def _idle_connection(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
        return None

    def _watch(self, task: asyncio.Task[None]) -> None:
        """A defect in the client itself ends the run loudly instead of leaving it waiting."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._defect = error
            self.stop()

    async def _connect_and_start(self, exchange: Exchange) -> None:
        try:
            connection = await self._connect()
        except OSError as error:
            self._connecting.pop(exchange, None)
            self.finish(exchange, self.clock_ns(), Failure.CONNECT_FAILED, str(error), None)
            return
        self._connecting.pop(exchange, None)
        exchange.connected_ns = self.clock_ns()
        connection.start(exchange)

    def finish(
        self,
        exchange: Exchange,
        now: int,
        failure: Failure | None,
        detail: str,
        connection: Connection | None,
    ) -> None:
        """Called once per exchange: stamp it, keep the connection, start the next one in a closed loop."""
        if exchange not in self._in_flight:
            return
        self._in_flight.discard(exchange)
        exchange.end_ns, exchange.failure, exchange.connection = now, failure, None
        exchange.detail = detail if failure else ""
        self._finished_count += 1
        if connection is not None and connection.usable:
            self._idle.append(connection)
        if self._awaited and (waiter := self._awaited.pop(exchange, None)) and not waiter.done():
            waiter.set_result(None)
        if self._on_progress is not None:
            self._on_progress(self._finished_count)
        if self._finished_count == len(self._plan.requests) or not (self._sends or self._in_flight):
            self._stopped.set()
        elif self._may_send_more():
            self._think_and_dispatch()

    def _think_and_dispatch(self) -> None:
        loop = self._plan.loop
        if isinstance(loop, ClosedLoop) and loop.think_s > 0:
            asyncio.get_running_loop().call_later(loop.think_s, self._dispatch_if_running)
        else:
            self._dispatch_next(self.clock_ns())

    def _dispatch_if_running(self) -> None:
        if self._may_send_more():
            self._dispatch_next(self.clock_ns())

    def _may_send_more(self) -> bool:
        goes_on = self._sends and not self._stopped.is_set()
        left = len(self._exchanges) < len(self._plan.requests)
        return isinstance(self._plan.loop, ClosedLoop) and goes_on and left

    def drop(self, connection: Connection) -> None:
        """A connection is gone."""
        self._connections.discard(connection)

    def _give_up(self, exchange: Exchange, failure: Failure, detail: str) -> None:
        task = self._connecting.pop(exchange, None)
        if task is not None:
            task.cancel()
        if exchange.connection is not None:
            exchange.connection.abort()
        self.finish(exchange, self.clock_ns(), failure, detail, None)

    async def _sweep(self) -> None:
        """End requests that are over the time limit."""
        limit_ns = round(self._plan.request_timeout_s * 1e9)
        while True:
            await asyncio.sleep(SWEEP_S)
            now = self.clock_ns()
            for exchange in list(self._in_flight):
                if now - (exchange.dispatched_ns or now) > limit_ns:
                    detail = f"no end within {self._plan.request_timeout_s:g} s"
                    self._give_up(exchange, Failure.TIMEOUT, detail)

    async def _clean_up(self, helpers: list[asyncio.Task[None]]) -> None:
        self.stop()
        pending = [*helpers, *self._connecting.values()]
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        self.abandon()
        await asyncio.sleep(0)


async def _address_of(target: Target) -> tuple[str, int]:
    """Of a name with several addresses the first that takes a connection: `localhost` is often IPv6 first,
    and many servers listen on IPv4 alone. When none does, the first, whose requests then say why."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys((str(entry[4][0]), int(entry[4][1])) for entry in found))
    several = addresses if len(addresses) > 1 else []
    for host, port in several:
        with suppress(OSError):  # a timeout is one
            async with asyncio.timeout(_TRIAL_S):
                transport, _ = await loop.create_connection(asyncio.Protocol, host, port)
            transport.abort()
            return host, port
    return addresses[0]


@contextmanager
def frozen_gc() -> Iterator[None]:
    """No garbage collection inside: a pause would be measured as the server's latency.

    Nor one before: what a pass over the whole heap finds is not looked for inside either, and it takes half a
    second in a process that has much loaded, which an A/B would pay in every slot.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def new_event_loop() -> asyncio.AbstractEventLoop:
    """A uvloop loop where there is one: it costs a quarter of the CPU per read."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def run_blocking(plan: LoadPlan, on_progress: Callable[[int], None] | None = None) -> list[Exchange]:
    """Carry out a plan from synchronous code, with the collector frozen."""

    async def main() -> list[Exchange]:
        return await LoadRun(plan, on_progress=on_progress).run()

    with frozen_gc(), asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(main())
