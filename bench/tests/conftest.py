"""Servers that misbehave on purpose, and records with chosen time stamps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from sluice_bench.connection import Exchange
from sluice_bench.target import Target, WireRequest, http_request

Script = Sequence[bytes | float]
"""What a scripted server does after a request: bytes are sent, numbers are seconds of waiting."""

StreamHandler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class ScriptedServer:
    """Plays one script per request; `hang_up` closes the connection after each."""

    def __init__(self, script: Script, hang_up: bool = False, answer_from: int = 0) -> None:
        """With `answer_from`, nothing is answered until so many requests are in flight."""
        self._script = script
        self._enough = asyncio.Event()
        self._answer_from = answer_from
        self._hang_up = hang_up
        self.requests: list[bytes] = []
        self.connections = 0
        self.in_flight = 0
        self.most_in_flight = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
                body = await reader.readexactly(int(length[0].split(b":")[1])) if length else b""
                self.requests.append(head + body)
                self.in_flight += 1
                self.most_in_flight = max(self.most_in_flight, self.in_flight)
                if self.in_flight >= self._answer_from:
                    self._enough.set()
                await self._enough.wait()
                await self._play(reader, writer)
                self.in_flight -= 1
                if self._hang_up:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    async def _play(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for step in self._script:
            if isinstance(step, bytes):
                writer.write(step)
                await writer.drain()
            else:
                await self._wait(step, reader)

    async def _wait(self, seconds: float, reader: asyncio.StreamReader) -> None:
        """Until the time is over; a client that leaves meanwhile is noticed."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while (left := until - loop.time()) > 0:
            if reader.at_eof() or reader.exception() is not None:
                raise ConnectionResetError
            await asyncio.sleep(min(left, 0.005))


@asynccontextmanager
async def listening(handler: StreamHandler) -> AsyncIterator[Target]:
    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    try:
        yield Target(host="127.0.0.1", port=server.sockets[0].getsockname()[1])
    finally:
        server.close()
        await server.wait_closed()


@pytest.fixture
def scripted() -> type[ScriptedServer]:
    return ScriptedServer


@pytest.fixture
def listen() -> Callable[[StreamHandler], object]:
    return listening


@pytest.fixture
def exchange_of() -> Callable[..., Exchange]:
    """An exchange scheduled at 0, written at `written_ns`, with the given reads."""

    def build(
        reads: Sequence[tuple[int, bytes]],
        *,
        stream: bool = True,
        written_ns: int = 10,
        scheduled_ns: int = 0,
    ) -> Exchange:
        exchange = Exchange(0, WireRequest(b"", stream), scheduled_ns)
        exchange.dispatched_ns = exchange.connected_ns = exchange.written_ns = written_ns
        exchange.reads = list(reads)
        exchange.end_ns = reads[-1][0] if reads else None
        return exchange

    return build


@pytest.fixture
def requests_to() -> Callable[..., list[WireRequest]]:
    def build(target: Target, count: int, stream: bool = False) -> list[WireRequest]:
        wire = http_request(target, "POST", "/v1/chat/completions", b"{}")
        return [WireRequest(wire, stream)] * count

    return build


@pytest.fixture
def few_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run waits for so many probes that a p99 means something; no test looks at one."""
    monkeypatch.setattr("sluice_bench.calibration.MIN_PROBES", 4)
