"""Comments in the silence of a stream, on a clock that jumps to whatever comes next."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from sluice_worker.server.exchange import ClientLeftError, Exchange, client_present
from sluice_worker.server.sse import EventStream

KEEP_ALIVE = b": keep-alive\n\n"


class JumpingSelector(selectors.DefaultSelector):
    """Does not wait: time passes at once."""

    now_s = 0.0

    def select(self, timeout: float | None = None) -> Any:
        self.now_s += timeout or 0.0
        return super().select(0)


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    selector = JumpingSelector()
    loop = asyncio.SelectorEventLoop(selector)
    loop.time = lambda: selector.now_s  # type: ignore[method-assign]
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(scenario())  # type: ignore[arg-type]


class Pauses:
    """Items that come after so many seconds each; cancelling the wait for one does not lose it."""

    def __init__(self, *pauses_s: float) -> None:
        loop = asyncio.get_running_loop()
        start_s, self._ends_s = loop.time(), list[float]()
        for pause_s in pauses_s:
            start_s += pause_s
            self._ends_s.append(start_s)

    def __aiter__(self) -> AsyncIterator[float]:
        return self

    async def __anext__(self) -> float:
        if not self._ends_s:
            raise StopAsyncIteration
        await asyncio.sleep(self._ends_s[0] - asyncio.get_running_loop().time())
        return self._ends_s.pop(0)


def stream(silence_s: float) -> tuple[EventStream, list[bytes]]:
    sent: list[bytes] = []

    async def send(message: Any) -> None:
        sent.append(message.get("body", b""))

    async def receive() -> Any:
        await asyncio.sleep(1e6)

    exchange = Exchange({"method": "POST", "path": "/", "headers": []}, receive, send, "id")
    return EventStream(exchange, silence_s), sent


async def comments(silence_s: float, *pauses_s: float) -> tuple[list[float], int]:
    """The items of a stream, and the comments sent while it waited for them."""
    events, sent = stream(silence_s)
    items, found = Pauses(*pauses_s), []
    while True:
        try:
            found.append(await events.next(items))
        except StopAsyncIteration:
            break
    await events.done()
    return found, sent.count(KEEP_ALIVE)


def test_a_silent_stream_gets_a_comment_each_time_and_loses_nothing() -> None:
    async def scenario() -> None:
        assert await comments(15, 50, 1, 16) == ([50, 51, 67], 4)

    run(scenario)


def test_silence_is_counted_from_the_last_item_however_many_came() -> None:
    async def scenario() -> None:
        assert await comments(15, *[14] * 10, 29) == ([*range(14, 141, 14), 169], 1)
        assert (await comments(15, *[0.01] * 5000))[1] == 0

    run(scenario)


def test_one_timer_serves_many_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        loop, armed = asyncio.get_running_loop(), []
        call_later = loop.call_later

        def counted(delay_s: float, callback: Any, *arguments: Any) -> Any:
            if getattr(callback, "__name__", "") == "_look":
                armed.append(delay_s)
            return call_later(delay_s, callback, *arguments)

        monkeypatch.setattr(loop, "call_later", counted)
        await comments(15, *[0.1] * 400)  # forty seconds
        assert len(armed) == 3

    run(scenario)


def test_a_client_that_leaves_during_the_silence_ends_the_wait() -> None:
    async def scenario() -> None:
        events, sent = stream(15)

        async def receive() -> Any:
            await asyncio.sleep(40)
            return {"type": "http.disconnect"}

        with pytest.raises(ClientLeftError):
            async with client_present(receive):
                await events.next(Pauses(1000))
        assert sent.count(KEEP_ALIVE) == 2

    run(scenario)


def test_a_client_that_leaves_at_the_moment_of_a_comment_ends_the_wait() -> None:
    async def scenario() -> None:
        events, _ = stream(15)

        async def receive() -> Any:
            await asyncio.sleep(15)
            return {"type": "http.disconnect"}

        with pytest.raises(ClientLeftError):
            async with client_present(receive):
                await asyncio.sleep(0)  # so that the client's timer comes before the stream's
                await events.next(Pauses(1000))

    run(scenario)


def test_a_stream_in_time_is_not_interrupted_while_it_sends() -> None:
    """The timer goes off while a slow client is being written to."""

    async def scenario() -> None:
        events, sent = stream(15)
        items = Pauses(1, 1)
        await events.next(items)
        await asyncio.sleep(100)
        await events.next(items)
        assert KEEP_ALIVE not in sent

    run(scenario)
