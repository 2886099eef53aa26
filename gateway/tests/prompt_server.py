"""uvicorn's server, as it stops when a test has ended: soon."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import uvicorn

_LOOK_S = 0.002
_TICK_S = 0.1
_FIRST_S, _LAST_S = 0.2, 0.02
"""What an application begins with, such as a look into its database, is over before it is stopped, and so is
the database's part of what the test did last: a driver that is interrupted leaves its connection behind."""


class PromptServer(uvicorn.Server):
    """uvicorn looks every tenth of a second whether it shall stop, and then sleeps for another one, however
    long it has served: a minute of all tests. What it does meanwhile is the same."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._over = asyncio.Event()

    def stop(self) -> None:
        """No more connections; those that are open may finish within the configured time."""
        self.should_exit = True
        self._over.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The test runner's signals are its own."""
        yield

    async def main_loop(self) -> None:
        ticks, begun_s = 0, asyncio.get_running_loop().time()
        while not await self.on_tick(ticks):
            ticks += 1
            with suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), _TICK_S)
        await asyncio.sleep(max(_LAST_S, begun_s + _FIRST_S - asyncio.get_running_loop().time()))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for listener in (*self.servers, *(sockets or ())):
            listener.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        try:
            async with asyncio.timeout(self.config.timeout_graceful_shutdown):
                await self._until_finished()
        except TimeoutError:
            for task in self.server_state.tasks:
                task.cancel("graceful shutdown took too long")
        await self.lifespan.shutdown()

    async def _until_finished(self) -> None:
        while self.server_state.connections or self.server_state.tasks:  # noqa: ASYNC110 - it sets no event
            await asyncio.sleep(_LOOK_S)
        for server in self.servers:
            await server.wait_closed()
