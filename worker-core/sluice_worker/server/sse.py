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
        self._silence_s = silence_s

    async def next(self, items: AsyncIterator[ItemT]) -> ItemT:
        """The next item, with comments sent while it does not come.

        `items` must survive the cancellation of its `__anext__`. Raises `StopAsyncIteration` at its end.
        """
        while True:
            try:
                async with asyncio.timeout(self._silence_s):
                    return await anext(items)
            except TimeoutError:
                await self._send(b": keep-alive\n\n")

    async def event(self, value: object, name: bytes | None = None) -> None:
        """One event; `value` is a Struct, and `name` the type under which browsers dispatch it."""
        head = b"" if name is None else b"event: " + name + b"\n"
        await self._send(head + b"data: " + msgspec.json.encode(value) + b"\n\n")

    async def done(self) -> None:
        """The end of a complete answer."""
        await self._send(b"data: [DONE]\n\n")
        await self._exchange.end_stream()

    async def end(self) -> None:
        """The end of a complete answer whose last event has said so."""
        await self._exchange.end_stream()

    async def _send(self, data: bytes) -> None:
        if self._exchange.status is None:
            await self._exchange.start_stream(_CONTENT_TYPE, _HEADERS)
        await self._exchange.send_part(data)


async def break_off(exchange: Exchange, error: ApiError) -> None:
    """End a stream that has begun with an error event and without `[DONE]`."""
    await exchange.send_part(b"data: " + error.body() + b"\n\n")
    await exchange.end_stream()
