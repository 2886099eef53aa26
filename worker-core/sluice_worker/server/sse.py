"""Server-sent events, framed as OpenAI's API frames them.

Only `data:` lines and comments (and, in native streams, names of events that are not text); `[DONE]` or an
event `done` ends a stream that went well, an error event one that did not. The
answer's head is sent with the first event, so that what fails before it can still be a real HTTP status. A
silent stream gets a comment every `silence_s`, before the first event too: proxies cut idle connections.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TypeVar

import msgspec

from sluice_worker.server.errors import ApiError
from sluice_worker.server.exchange import Exchange

SILENCE_S = 15.0

_CONTENT_TYPE = b"text/event-stream; charset=utf-8"
_HEADERS = ((b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"))

ItemT = TypeVar("ItemT")


class EventStream:
    """A streamed answer of one exchange."""

    def __init__(self, exchange: Exchange, silence_s: float = SILENCE_S) -> None:
        self._exchange = exchange
        self._patience = _Patience(silence_s)

    async def next(self, items: AsyncIterator[ItemT]) -> ItemT:
        """The next item, with comments sent while it does not come.

        `items` must survive the cancellation of its `__anext__`. Raises `StopAsyncIteration` at its end.
        """
        while True:
            self._patience.begin()
            try:
                return await anext(items)
            except asyncio.CancelledError:
                if not self._patience.ran_out():
                    raise
            finally:
                self._patience.end()
            await self._send(b": keep-alive\n\n")

    async def event(self, value: object, name: bytes | None = None) -> None:
        """One event; `value` is a Struct, and `name` the type under which browsers dispatch it."""
        head = b"" if name is None else b"event: " + name + b"\n"
        await self._send(head + b"data: " + msgspec.json.encode(value) + b"\n\n")

    async def done(self) -> None:
        """The end of a complete answer."""
        self._patience.close()
        await self._send(b"data: [DONE]\n\n")
        await self._exchange.end_stream()

    async def end(self) -> None:
        """The end of a complete answer whose last event has said so."""
        await self._exchange.end_stream()

    async def _send(self, data: bytes) -> None:
        if self._exchange.status is None:
            await self._exchange.start_stream(_CONTENT_TYPE, _HEADERS)
        await self._exchange.send_part(data)


class _Patience:
    """Interrupts waits that last too long, as `asyncio.timeout` does, with one timer for many of them.

    A stream waits for each token. The timer is not set anew each time: when it goes off, it looks how long
    the wait that is going on has lasted, and goes on for the rest.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[object] | None = None
        """The one that waits, while it does."""
        self._since_s = 0.0
        self._interrupted = False
        self._cancelling = 0

    def begin(self) -> None:
        """The current task is about to wait."""
        self._task = asyncio.current_task()
        self._since_s = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_later(self._limit_s, self._look)

    def end(self) -> None:
        """It has what it waited for, or has given up."""
        self._task = None

    def ran_out(self) -> bool:
        """Whether the cancellation of the wait, just now, was ours and nobody else's."""
        if not self._interrupted or self._task is None:
            return False
        self._interrupted = False
        return self._task.uncancel() <= self._cancelling

    def close(self) -> None:
        """No more waits."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        self._timer = None
        if self._task is None:
            return  # it is sending; the next wait sets the timer
        left_s = self._since_s + self._limit_s - self._loop.time()
        if left_s > 0:
            self._timer = self._loop.call_later(left_s, self._look)
            return
        self._interrupted = True
        self._cancelling = self._task.cancelling()
        self._task.cancel()


async def break_off(exchange: Exchange, error: ApiError) -> None:
    """End a stream that has begun with an error event and without `[DONE]`."""
    await exchange.send_part(b"data: " + error.body() + b"\n\n")
    await exchange.end_stream()
