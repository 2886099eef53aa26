"""A server with fixed pages, in place of an engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path


class Engine:
    """A server with fixed pages."""

    def __init__(self, pages: dict[str, tuple[int, str]], stall: str | None = None) -> None:
        self.pages = pages
        self.stall = stall
        self.authorizations: list[str] = []
        self.asked: list[str] = []
        """Paths, in the order of the requests."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode():
                path = head.split(" ")[1]
                self.asked.append(path)
                for line in head.split("\r\n"):
                    if line.lower().startswith("authorization: "):
                        self.authorizations.append(line.split(": ")[1])
                if path == self.stall:
                    await asyncio.sleep(3600)
                status, body = self.pages.get(path, (404, "{}"))
                writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode())
        except (asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(engine: Engine, uds: Path | None = None) -> AsyncIterator[str]:
    """The engine's base URL."""
    connections: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.add(asyncio.ensure_future(engine.serve(reader, writer)))

    if uds is None:
        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    else:
        server = await asyncio.start_unix_server(connected, uds)
        url = f"http+unix://{uds}"
    try:
        yield url
    finally:
        server.close()
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections)
        await server.wait_closed()
