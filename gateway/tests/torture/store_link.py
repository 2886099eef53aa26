"""A network cable to the database that can be cut, or go dead without a word."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Literal

State = Literal["well", "cut", "dead"]


class StoreLink:
    """Passes bytes between the gateway and a port, while it is well."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._state: State = "well"
        self._passing = asyncio.Event()
        self._passing.set()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> int:
        """The port to connect to."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    def turn(self, state: State) -> None:
        """`cut`: connections are closed, new ones too. `dead`: nothing passes, and nobody is told."""
        self._state = state
        if state == "dead":
            self._passing.clear()
        else:
            self._passing.set()
        if state == "cut":
            for writer in self._writers:
                writer.transport.abort()

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            if self._state == "cut":
                return
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
            self._writers.add(far_writer)
            try:
                await asyncio.gather(self._pass(reader, far_writer), self._pass(far_reader, writer))
            finally:
                far_writer.transport.abort()
                self._writers.discard(far_writer)
        except asyncio.CancelledError:
            pass  # `stop`; the streams would log it
        finally:
            writer.transport.abort()
            self._writers.discard(writer)
            self._tasks.discard(task)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                await self._passing.wait()
                writer.write(data)
        writer.transport.abort()


@asynccontextmanager
async def store_link(port: int) -> AsyncIterator[tuple[StoreLink, int]]:
    """A link to a port, and the port to use instead."""
    link = StoreLink(port)
    try:
        yield link, await link.start()
    finally:
        await link.stop()
