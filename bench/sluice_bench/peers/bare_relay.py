"""The ceiling for a gateway in Python: bytes from one socket to another, nothing read, nothing checked.

`python -m sluice_bench.peers.bare_relay UPSTREAM_URL PORT`: one upstream connection for each client
connection, asyncio protocols on uvloop. What a gateway costs above this is its own work; what this costs is
sockets.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast
from urllib.parse import urlsplit

from sluice_bench.load_run import new_event_loop


class _End(asyncio.Protocol):
    """One side of a relayed connection."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.other: _End | None = None
        self.early = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.write(data)
        else:
            self.early += data

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()


class _Front(_End):
    """A client's side: connects its own upstream."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__()
        self._address = (host, port)
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._task = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        _, back = await asyncio.get_running_loop().create_connection(_End, *self._address)
        back.other, self.other = self, back
        if self.early and back.transport is not None:
            back.transport.write(self.early)
            self.early = b""


async def _serve(upstream: str, port: int) -> None:
    address = urlsplit(upstream)
    host, upstream_port = address.hostname or "127.0.0.1", address.port or 80
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Front(host, upstream_port), "127.0.0.1", port)
    await server.serve_forever()


def main() -> None:
    """Entry point."""
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(_serve(sys.argv[1], int(sys.argv[2])))


if __name__ == "__main__":
    main()
