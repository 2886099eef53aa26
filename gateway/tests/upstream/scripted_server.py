"""A raw TCP server that sends exactly the bytes that a test tells it to, cut where the test tells it to."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

PATIENCE_S = 20.0
"""How long a test may hang before it fails. Never a measure of speed."""


class Peer:
    """The server's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def request(self) -> bytes:
        """Head and body of the next request. Raises `IncompleteReadError` when the client closed instead."""
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        return head + await self._reader.readexactly(length)

    async def send(self, *pieces: bytes) -> None:
        """Write each piece so that the client reads it before the next one is sent."""
        for piece in pieces:
            self._writer.write(piece)
            await self._writer.drain()
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    async def read(self, size: int) -> bytes:
        """Up to `size` raw bytes; empty at the end."""
        return await self._reader.read(size)

    async def until_closed(self) -> None:
        """Return once the client closed its side (or reset the connection)."""
        with suppress(ConnectionError):
            while await self._reader.read(65536):
                pass

    def reset(self) -> None:
        """Close with a RST instead of a FIN."""
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self._writer.transport.abort()


Script = Callable[[Peer], Awaitable[None]]


class ScriptedServer:
    """Runs `script` for every connection, and closes the connection when the script returns."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.url = ""
        self.accepted = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, *, tls: ssl.SSLContext | None = None, socket_path: Path | None = None) -> None:
        if socket_path is not None:
            self._server = await asyncio.start_unix_server(self._serve, str(socket_path))
            self.url = f"http+unix://{socket_path}"
            return
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"https://localhost:{port}" if tls else f"http://127.0.0.1:{port}"

    @property
    def connected(self) -> int:
        """Connections whose script still runs."""
        return len(self._tasks)

    async def until_idle(self) -> None:
        """Return once every script has returned."""
        await eventually(lambda: not self._tasks)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.accepted += 1
        self._tasks.add(task)
        try:
            await self.script(Peer(reader, writer))
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            writer.transport.abort()  # The client left or the test is over: no farewell.
        else:
            writer.close()
        finally:
            self._tasks.discard(task)


def answering(*pieces: bytes, then_close: bool = True) -> Script:
    """A script that reads a request and sends `pieces`, then closes, or goes on to the next request."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(*pieces)
            if then_close:
                return

    return script


def pieces_of(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """`data` cut at the given offsets; empty pieces are left out."""
    edges = [0, *sorted(cuts), len(data)]
    return [data[start:end] for start, end in pairwise(edges) if start < end]


async def eventually(condition: Callable[[], bool]) -> None:
    """Return once `condition` holds; fail the test if it never does."""
    for _ in range(int(PATIENCE_S / 0.001)):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("the condition never became true")
