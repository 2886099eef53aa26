"""One connection to Redis that all requests of a process share.

Commands of one turn of the event loop leave in one write; answers come back in order. A command is sent
once: a connection that is lost, or silent for longer than the time limit, fails everything that waits on
it, and nobody knows then which of it was done. Retrying is for whoever can tell that twice is the same as
once.

A late timer does not mean a late answer: when the event loop itself was held up, the answer may lie in the
socket already. So an overdue command gets one more turn of the loop before the connection is given up.

Source of the protocol: RESP2, parsed by hiredis.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import hiredis

from sluice_gateway.limits.scripts import Argument

_GRACE_S = 0.002
Orphan = Callable[[Any], None]
"""Takes the answer (or the `StoreError`) to a command that nobody waits for any more."""


class StoreError(Exception):
    """The shared store did not do what was asked.

    StoreError
      StoreLost      the connection is gone; whether the command was executed is unknown
      StoreRefused   the server answered with an error; its word is the first of the message
    """


class StoreLost(StoreError):
    """See `StoreError`."""


class StoreRefused(StoreError):
    """See `StoreError`."""

    @property
    def word(self) -> str:
        """The error's code, e.g. `NOSCRIPT`."""
        return str(self).partition(" ")[0]


class _Call:
    __slots__ = ("future", "orphan", "sent_s")

    def __init__(self, future: asyncio.Future[Any], orphan: Orphan | None, sent_s: float) -> None:
        self.future = future
        self.orphan = orphan
        self.sent_s = sent_s

    def finish(self, answer: Any) -> None:
        """Hand an answer or a `StoreError` to whoever waits, or used to."""
        if self.future.done():
            if self.orphan is not None:
                self.orphan(answer)
        elif isinstance(answer, StoreError):
            self.future.set_exception(answer)
            self.future.exception()  # seen: nobody has to fetch it
        else:
            self.future.set_result(answer)


class RedisConnection(asyncio.Protocol):
    """Made by `loop.create_connection`; of no use once lost."""

    def __init__(self, timeout_s: float, on_lost: Callable[[str], None]) -> None:
        """`on_lost` is told why, once."""
        self._loop = asyncio.get_running_loop()
        self._timeout_s = timeout_s
        self._on_lost = on_lost
        self._reader = hiredis.Reader()
        self._transport: asyncio.Transport | None = None
        self._buffer: list[bytes] = []
        self._calls: deque[_Call] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._suspect: _Call | None = None
        self._lost = False

    def call(self, command: tuple[Argument, ...], orphan: Orphan | None = None) -> asyncio.Future[Any]:
        """Send a command; the future has its answer, or a `StoreError`.

        When the future is cancelled, the answer goes to `orphan` instead.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        if self._lost:
            future.set_exception(StoreLost("the connection is closed"))
            return future
        if not self._buffer:
            self._loop.call_soon(self._flush)
        self._buffer.append(hiredis.pack_command(command))  # type: ignore[arg-type]
        self._calls.append(_Call(future, orphan, self._loop.time()))
        if self._timer is None:
            self._timer = self._loop.call_later(self._timeout_s, self._check)
        return future

    def close(self, why: str = "closed") -> None:
        """Give the connection up; everything that waits fails. Idempotent."""
        if self._lost:
            return
        self._lost = True
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()
        error = StoreLost(why)
        while self._calls:
            self._calls.popleft().finish(error)
        self._on_lost(why)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by type

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self.close(f"connection lost: {exc}" if exc else "the server closed the connection")

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        try:
            self._reader.feed(data)
            while (answer := self._reader.gets()) is not False:
                if isinstance(answer, hiredis.ReplyError):
                    answer = StoreRefused(str(answer))
                self._calls.popleft().finish(answer)
        except (hiredis.ProtocolError, IndexError):
            self.close("what came is not Redis' protocol")

    def _flush(self) -> None:
        buffer, self._buffer = self._buffer, []
        if self._transport is not None and not self._lost:
            self._transport.write(b"".join(buffer))

    def _check(self) -> None:
        """Give up when the oldest command has waited too long, after one more look at the socket."""
        self._timer = None
        if not self._calls or self._lost:
            return
        oldest = self._calls[0]
        left_s = oldest.sent_s + self._timeout_s - self._loop.time()
        if left_s > 0:
            self._timer = self._loop.call_later(left_s, self._check)
        elif self._suspect is not oldest:
            self._suspect = oldest
            self._timer = self._loop.call_later(_GRACE_S, self._check)
        else:
            self.close(f"no answer within {self._timeout_s:g} s")
