"""The way to Redis, with a breaker in it: open while Redis cannot be asked, so that no request waits for it.

closed     connected; calls go through. A lost connection, a command without an answer in time, or
           several error answers in a row open it, whether a request was waiting for them or not.
open       calls fail at once; after a growing, jittered pause a new connection is tried
half-open  connected again, but only the owner's `on_up` talks: it has to succeed before requests may

A Redis Cluster answers MOVED when another node owns our slot. All of our keys share one slot, so the link
moves there as a whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from sluice_gateway.limits.counters import LimiterCounters
from sluice_gateway.limits.redis_address import RedisAddress
from sluice_gateway.limits.redis_connection import (
    Orphan,
    RedisConnection,
    StoreError,
    StoreRefused,
)
from sluice_gateway.limits.scripts import Argument

_log = logging.getLogger("sluice")

_CONNECT_S = 2.0
_ERRORS_TO_OPEN = 5
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 2.0


class RedisLink:
    """Owns the connection. `start` before the first call, `aclose` after the last."""

    def __init__(
        self,
        address: RedisAddress,
        timeout_s: float,
        on_up: Callable[[RedisConnection], Awaitable[None]],
        on_down: Callable[[], None],
        counters: LimiterCounters,
        random: Callable[[], float],
    ) -> None:
        """`on_up` runs on each new connection, before anybody else may use it; `random` gives [0, 1)."""
        self._address = address
        self._timeout_s = timeout_s
        self._on_up = on_up
        self._on_down = on_down
        self._counters = counters
        self._random = random
        self._connection: RedisConnection | None = None
        self._errors_in_a_row = 0
        self._down = asyncio.Event()
        self._first_try = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.available = False
        """The breaker is closed."""

    async def start(self, patience_s: float) -> None:
        """Begin; return when the first attempt is over, or after `patience_s`."""
        self._task = asyncio.create_task(self._keep_connected())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                await self._first_try.wait()

    async def aclose(self) -> None:
        """Close for good."""
        self.available = False
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._connection is not None:
            self._connection.close()

    def call(self, command: tuple[Argument, ...], orphan: Orphan | None = None) -> asyncio.Future[Any]:
        """See `RedisConnection.call`. Only while `available`."""
        assert self._connection is not None
        return self._connection.call(command, orphan)

    def note_success(self) -> None:
        """A call was answered."""
        self._errors_in_a_row = 0

    def note_error(self, error: StoreError) -> None:
        """A call failed. Several refusals in a row open the breaker; a lost connection has already."""
        self._counters.errors += 1
        self._errors_in_a_row += 1
        if not isinstance(error, StoreRefused) or self._connection is None:
            return
        if error.word == "MOVED":
            self._address = self._address.moved(str(error).split()[2])
            self._connection.close("the keys are on another node of the cluster")
        elif self._errors_in_a_row >= _ERRORS_TO_OPEN:
            self._connection.close(f"{self._errors_in_a_row} errors in a row, the last one {error}")

    async def _keep_connected(self) -> None:
        failures = 0
        while True:
            reason = await self._connect()
            self._first_try.set()
            if reason is None:
                failures = 0
                self._open_for_requests()
                await self._down.wait()
            else:
                failures += 1
                if failures == 1:
                    _log.warning("Redis at %s cannot be used: %s", self._address, reason)
            pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** min(failures, 10))
            await asyncio.sleep(pause_s * (0.5 + 0.5 * self._random()))

    def _open_for_requests(self) -> None:
        if self._down.is_set():
            return
        self._errors_in_a_row = 0
        self.available = True
        self._counters.mode = "redis"
        _log.info("limits are shared through Redis at %s", self._address)

    async def _connect(self) -> str | None:
        """Get to half-open and, through `on_up`, beyond. Returns what went wrong."""
        self._down.clear()
        try:
            async with asyncio.timeout(_CONNECT_S):
                connection = await self._address.connect(lambda: RedisConnection(self._timeout_s, self._lost))
        except (OSError, TimeoutError) as error:
            self._counters.errors += 1
            return str(error) or "no connection in time"
        self._connection = connection
        try:
            for command in self._address.greeting():
                await connection.call(command)
            await self._on_up(connection)
        except StoreError as error:
            self.note_error(error)
            connection.close(str(error))
            return str(error)
        return None

    def _lost(self, reason: str) -> None:
        self._down.set()
        if self.available:
            self.available = False
            self._counters.mode = "degraded"
            _log.warning("Redis at %s is lost: %s; limits hold as configured for that", self._address, reason)
            self._on_down()
