"""Clients without sockets: a wire that remembers, and requests with answers as a test wants them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from sluice_gateway.arrival import Arrival, GivenBody
from sluice_gateway.errors import Failure
from sluice_gateway.exchange import Exchange
from sluice_gateway.identity import Key
from sluice_gateway.interruption import Interruption
from sluice_gateway.replay.delivery import Delivery
from sluice_gateway.replay.replays import Replays
from sluice_gateway.response import Envelope
from sluice_gateway.routes import DATA_PLANE
from sluice_gateway.wire import Header

ALICE = Key(id="alice", tenant="acme")
SSE = (b"content-type", b"text/event-stream; charset=utf-8")
JSON = (b"content-type", b"application/json")


class MemoryWire:
    """Remembers an answer; `slow` makes every write something to wait for."""

    def __init__(self, slow: Callable[[], Awaitable[object]] | None = None) -> None:
        self._slow = slow
        self.status = 0
        self.headers: list[Header] = []
        self.body = b""
        self.finished = False
        self.was_whole = False
        self.pieces = 0

    async def _wait(self) -> None:
        assert self._slow is not None
        await self._slow()

    def start(self, status: int, headers: list[Header]) -> Awaitable[None] | None:
        assert self.status == 0
        self.status, self.headers = status, headers
        return self._wait() if self._slow else None

    def write(self, data: bytes) -> Awaitable[None] | None:
        assert self.status and not self.finished and data
        self.body += data
        self.pieces += 1
        return self._wait() if self._slow else None

    def finish(self, data: bytes = b"") -> Awaitable[None] | None:
        assert self.status and not self.finished
        self.body += data
        self.finished = True
        return None

    def whole(self, status: int, headers: list[Header], body: bytes) -> Awaitable[None] | None:
        assert self.status == 0
        self.status, self.headers, self.body = status, headers, body
        self.finished = self.was_whole = True
        return None

    def header(self, name: bytes) -> bytes | None:
        found = [value for known, value in self.headers if known == name]
        assert len(found) <= 1, f"{name!r} is there twice"
        return found[0] if found else None


class Client:
    """One request and what its client got."""

    def __init__(
        self,
        body: bytes = b'{"model":"m"}',
        headers: dict[bytes, bytes] | None = None,
        *,
        key: Key = ALICE,
        path: str = "/v1/chat/completions",
        request_id: str = "req_1",
        slow: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        self.body, self.key = body, key
        self.wire = MemoryWire(slow)
        self.delivery: Delivery | None = None
        self.arrival = Arrival(
            route=DATA_PLANE[path],
            headers=headers or {},
            server=None,
            source=GivenBody(body),
            wire=self.wire,
            envelope=Envelope(request_id, time.monotonic, []),
        )

    async def ask(self, replays: Replays, produce: Callable[[Arrival], Awaitable[Exchange]]) -> object:
        """How the answer came, or the refusal."""
        task = asyncio.current_task()
        assert task is not None
        self.delivery = Delivery(self.wire, Interruption(task))
        assert replays.applies(self.arrival.headers)
        async with asyncio.timeout(20):
            return await replays.serve(self.arrival, self.key, self.body, self.delivery, produce)


def named(name: str = "once") -> dict[bytes, bytes]:
    return {b"idempotency-key": name.encode()}


class Engine:
    """Makes answers, and counts them. `step` is waited for before each piece."""

    def __init__(
        self,
        pieces: Sequence[bytes] = (b"data: a\n\n", b"data: b\n\n", b"data: [DONE]\n\n"),
        *,
        status: int = 200,
        stream: bool = True,
        cut: bool = False,
        failure: Failure | None = None,
        step: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        self.pieces, self.status, self.stream, self.cut = list(pieces), status, stream, cut
        self.failure, self.step = failure, step
        self.asked = 0
        self.interrupted: list[Failure | None] = []

    @property
    def text(self) -> bytes:
        return b"".join(self.pieces)

    async def answer(self, arrival: Arrival) -> Exchange:
        """As the pipeline does: read, watch, write; an interruption ends it and is noted."""
        self.asked += 1
        exchange = Exchange(arrival.envelope.request_id, arrival.route.kind, arrival.route.path, 0.0)
        exchange.failure = self.failure
        task = asyncio.current_task()
        assert task is not None
        interruption = Interruption(task)
        assert isinstance(await arrival.source.read(2**20, 1), bytes)
        arrival.source.watch(interruption)
        try:
            await self._write(arrival)
        except asyncio.CancelledError:
            self.interrupted.append(interruption.cause)
            if interruption.cause is None:
                raise
            task.uncancel()
            exchange.failure = interruption.cause
        finally:
            arrival.source.unwatch()
        return exchange

    async def _write(self, arrival: Arrival) -> None:
        head = [*arrival.envelope.headers(), (b"x-ratelimit-limit-requests", b"9")]
        if not self.stream:
            if self.step is not None:
                await self.step()
            arrival.wire.whole(self.status, [JSON, *head], self.text)
            return
        arrival.wire.start(self.status, [SSE, *head])
        for piece in self.pieces:
            if self.step is not None:
                await self.step()
            waiting = arrival.wire.write(piece)
            if waiting is not None:
                await waiting
        if not self.cut:
            arrival.wire.finish()
