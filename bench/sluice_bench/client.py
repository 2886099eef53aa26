"""The load client: sends requests on a schedule and records what came when.

The hot path records `(ns, bytes)` for each read and looks for the end of the response, nothing more; HTTP,
SSE, JSON and tokens are read from the record after the run (`answers.py`). The invariants:

- An open loop's schedule exists before the run, and sending never waits for an answer or for a free
  connection: there is no client-side limit on connections, so no hidden queue.
- Every scheduled request ends as one finished `Exchange`, whatever happens, also at the hard stop.
- A request is sent once. A kept-alive connection that the server closes under a request is a failure.
- The collector of garbage is frozen while a run lasts.

Knows nothing of what a request means.
"""

from __future__ import annotations

import asyncio
import gc
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, cast
from urllib.parse import urlsplit

import msgspec

from sluice_bench.http_wire import HttpWireError, ResponseEnd
from sluice_bench.records import Failure

SPIN_NS = 1_500_000
"""Timers fire to the millisecond, so the last stretch before a due time is polled between I/O rounds."""

SWEEP_S = 0.1
"""How often requests over their time limit are looked for."""


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A server to load."""

    host: str
    port: int
    tls: bool = False
    prefix: str = ""
    """Path in front of `/v1`, without a trailing slash."""

    @classmethod
    def parse(cls, url: str) -> Target:
        """From `http://host:port[/prefix]`; a trailing `/v1` is dropped. Raises `ValueError`."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is not a server address; use for example http://127.0.0.1:8000")
        tls = parts.scheme == "https"
        prefix = parts.path.rstrip("/").removesuffix("/v1")
        return cls(host=parts.hostname, port=parts.port or (443 if tls else 80), tls=tls, prefix=prefix)

    @property
    def authority(self) -> str:
        """`host:port` for the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class WireRequest(msgspec.Struct, frozen=True):
    """One request, ready for the socket."""

    wire: bytes
    stream: bool


class ClosedLoop(msgspec.Struct, frozen=True):
    """`concurrency` requests in flight; the next one starts when one ends."""

    concurrency: int
    think_s: float = 0.0
    """Between the end of a request and the start of the next one."""


class OpenLoop(msgspec.Struct, frozen=True):
    """Request k is due `offsets_ns[k]` after the start, whatever became of the others."""

    offsets_ns: tuple[int, ...]


class LoadPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What to send, where, when, and when to give up."""

    target: Target
    requests: Sequence[WireRequest]
    loop: ClosedLoop | OpenLoop
    warm_connections: int = 0
    """Connections opened before the clock starts, so that handshakes are not in the first answers."""
    request_timeout_s: float = 300.0
    hard_stop_s: float = 3600.0
    """After this, whatever is in flight is cut off and whatever is unsent stays unsent; both are recorded."""


class Exchange:
    """One request's raw record; filled in as it goes."""

    __slots__ = (
        "closed",
        "connected_ns",
        "connection",
        "detail",
        "dispatched_ns",
        "end_ns",
        "failure",
        "index",
        "reads",
        "request",
        "reused",
        "scheduled_ns",
        "written_ns",
    )

    def __init__(self, index: int, request: WireRequest, scheduled_ns: int) -> None:
        self.index = index
        self.request = request
        self.scheduled_ns = scheduled_ns
        self.dispatched_ns: int | None = None
        self.connected_ns: int | None = None
        self.written_ns: int | None = None
        self.end_ns: int | None = None
        self.reads: list[tuple[int, bytes]] = []
        """(time stamp, bytes) of every read."""
        self.failure: Failure | None = None
        self.detail = ""
        self.closed = False
        """The peer ended the connection after the last read."""
        self.reused = False
        self.connection: Connection | None = None


class ConnectionOwner(Protocol):
    """Who opens connections and is told what becomes of them."""

    clock_ns: Callable[[], int]

    def finish(
        self,
        exchange: Exchange,
        now: int,
        failure: Failure | None,
        detail: str,
        connection: Connection | None,
    ) -> None:
        """An exchange has ended."""

    def drop(self, connection: Connection) -> None:
        """A connection is gone."""


class Connection(asyncio.Protocol):
    """One connection carrying one exchange at a time."""

    def __init__(self, run: ConnectionOwner) -> None:
        self._run = run
        self._clock_ns = run.clock_ns
        self._transport: asyncio.Transport | None = None
        self._exchange: Exchange | None = None
        self._end = ResponseEnd()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)

    @property
    def usable(self) -> bool:
        """Open, and carrying nothing."""
        return self._transport is not None and not self._transport.is_closing() and self._exchange is None

    def start(self, exchange: Exchange) -> None:
        """Send a request. The connection must be usable."""
        assert self._transport is not None
        self._exchange = exchange
        self._end = ResponseEnd()
        exchange.connection = self
        exchange.written_ns = self._clock_ns()
        self._transport.write(exchange.request.wire)

    def data_received(self, data: bytes) -> None:
        """The hot path: a stamp, the bytes, and whether that was all."""
        now = self._clock_ns()
        exchange = self._exchange
        if exchange is None:
            self.abort()
            return
        exchange.reads.append((now, data))
        try:
            complete = self._end.feed(data)
        except HttpWireError as error:
            self._finish(now, Failure.PROTOCOL, str(error))
            return
        if complete:
            self._finish(now, None, "")

    def connection_lost(self, exc: Exception | None) -> None:
        """A response without a length ends well here; any other is lost."""
        exchange = self._exchange
        if exchange is not None:
            exchange.closed = exc is None
            ended = exc is None and self._end.at_eof()
            failure = None if ended else Failure.CONNECTION_LOST
            self._finish(self._clock_ns(), failure, str(exc) if exc else "the peer closed")
        self._run.drop(self)

    def _finish(self, now: int, failure: Failure | None, detail: str) -> None:
        exchange, self._exchange = self._exchange, None
        if failure is not None or not self._end.keep_alive:
            self.abort()
        if exchange is not None:
            self._run.finish(exchange, now, failure, detail, self)

    def abort(self) -> None:
        """Close at once; a running exchange is no longer ours."""
        self._exchange = None
        if self._transport is not None:
            self._transport.abort()


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
        self._finished_count = 0
        self._stopped = asyncio.Event()
        self._address = ("", 0)
        self._start_ns = 0
        self._defect: BaseException | None = None
        self._tls = ssl.create_default_context() if plan.target.tls else None

    async def run(self) -> list[Exchange]:
        """Send everything and wait for it. Returns one exchange per request, in request order."""
        await self._prepare()
        loop = asyncio.get_running_loop()
        hard_stop = loop.call_later(self._plan.hard_stop_s, self.stop)
        helpers = [asyncio.create_task(self._sweep())]
        try:
            if isinstance(self._plan.loop, OpenLoop):
                helpers.append(asyncio.create_task(self._pace(self._plan.loop.offsets_ns)))
                helpers[-1].add_done_callback(self._watch)
            else:
                self._start_workers(self._plan.loop.concurrency)
            if self._plan.requests:
                await self._stopped.wait()
        finally:
            hard_stop.cancel()
            await self._clean_up(helpers)
        if self._defect is not None:
            raise self._defect
        return self._exchanges

    def stop(self) -> None:
        """Stop now: cut off what is in flight, mark what was never sent. Idempotent."""
        if self._stopped.is_set():
            return
        self._stopped.set()
        now = self.clock_ns()
        for exchange in list(self._in_flight):
            self._give_up(exchange, Failure.CUT_OFF, "in flight at the hard stop")
        for index in range(len(self._exchanges), len(self._plan.requests)):
            exchange = Exchange(index, self._plan.requests[index], self._due_ns(index, now))
            exchange.failure, exchange.detail, exchange.end_ns = Failure.NOT_SENT, "hard stop", now
            self._exchanges.append(exchange)

    def _due_ns(self, index: int, now: int) -> int:
        loop = self._plan.loop
        return self._start_ns + loop.offsets_ns[index] if isinstance(loop, OpenLoop) else now

    async def _prepare(self) -> None:
        """Resolve the name and open warm connections, so that neither is in anyone's latency."""
        loop = asyncio.get_running_loop()
        target = self._plan.target
        found = await loop.getaddrinfo(target.host, target.port, type=1)
        self._address = (str(found[0][4][0]), int(found[0][4][1]))
        for _ in range(self._plan.warm_connections):
            self._idle.append(await self._connect())
        self._start_ns = self.clock_ns()

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

    async def _pace(self, offsets_ns: Sequence[int]) -> None:
        """Dispatch each request at its time; late ones at once, keeping their scheduled time."""
        for offset in offsets_ns[: len(self._plan.requests)]:
            due = self._start_ns + offset
            while (ahead := due - self.clock_ns()) > 0:
                pause_ns = max(0, ahead - SPIN_NS)
                await asyncio.sleep(pause_ns / 1e9)
            if self._stopped.is_set():
                return
            self._dispatch_next(due)

    def _dispatch_next(self, scheduled_ns: int) -> None:
        index = len(self._exchanges)
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
        if self._on_progress is not None:
            self._on_progress(self._finished_count)
        if self._finished_count == len(self._plan.requests):
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
        closed_loop = isinstance(self._plan.loop, ClosedLoop)
        return closed_loop and not self._stopped.is_set() and len(self._exchanges) < len(self._plan.requests)

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
        for connection in list(self._connections):
            connection.abort()
        await asyncio.sleep(0)


@contextmanager
def frozen_gc() -> Iterator[None]:
    """No garbage collection inside: a pause would be measured as the server's latency."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if was_enabled:
            gc.enable()


def http_request(
    target: Target, method: str, path: str, body: bytes = b"", headers: Sequence[tuple[str, str]] = ()
) -> bytes:
    """The bytes of one HTTP/1.1 request with keep-alive."""
    lines = [f"{method} {target.prefix}{path} HTTP/1.1", f"Host: {target.authority}"]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


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
