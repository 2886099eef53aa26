"""Open connections, and which of them wait for work.

Idle connections are taken last in, first out, so that a burst's extra connections are left alone and expire.
The pool sets no limit: how many requests an engine gets at once is the router's decision, and a pool that
queued would hide it.
"""

from __future__ import annotations

import asyncio

from sluice_engines.transport import ConnectionLost
from sluice_gateway.upstream.connection import Connection
from sluice_gateway.upstream.origin import Origin

_LAST_WAIT_S = 1.0
"""The sockets are closed by then; this only bounds the wait for the event loop to say so."""


class ConnectionPool:
    """Implements `ConnectionOwner`. Idle connections close after `idle_life_s` seconds."""

    def __init__(self, idle_life_s: float) -> None:
        self._idle_life_s = idle_life_s
        self._open: set[Connection] = set()
        self._idle: dict[Origin, dict[Connection, None]] = {}  # Insertion order is the stack.
        self._closing = False
        self._drained: asyncio.Future[None] | None = None

    @property
    def open_count(self) -> int:
        """Sockets that stand, idle ones included."""
        return len(self._open)

    @property
    def idle_count(self) -> int:
        """Sockets that wait for a request."""
        return sum(len(stack) for stack in self._idle.values())

    def take(self, origin: Origin) -> Connection | None:
        """The idle connection to `origin` that was used last, or `None`. It is the caller's from now on."""
        stack = self._idle.get(origin)
        while stack:
            connection, _ = stack.popitem()
            if connection.usable:
                return connection
        return None

    def adopt(self, connection: Connection) -> None:
        """Keep account of `connection`, whose socket stands, until `closed`.

        Not left to `connection_made`: uvloop, cancelled while connecting, closes a socket whose protocol it
        had told of the connection, and never tells it of the loss.
        """
        self._open.add(connection)

    def rested(self, connection: Connection) -> None:
        """Keep `connection` for the next request to its origin."""
        if self._closing:
            connection.abort()
            return
        self._idle.setdefault(connection.origin, {})[connection] = None
        connection.rest(self._idle_life_s)

    def closed(self, connection: Connection) -> None:
        """Forget `connection`."""
        self._open.discard(connection)
        stack = self._idle.get(connection.origin)
        if stack is not None:
            stack.pop(connection, None)
            if not stack:
                del self._idle[connection.origin]
        if self._drained is not None and not self._open and not self._drained.done():
            self._drained.set_result(None)

    async def aclose(self) -> None:
        """End every exchange with `ConnectionLost`; return once all sockets are closed, or soon after."""
        self._closing = True
        for connection in tuple(self._open):
            connection.fail(ConnectionLost("the gateway closed its connections to the upstream"))
        if self._open:
            if self._drained is None:
                self._drained = asyncio.get_running_loop().create_future()
            await asyncio.wait({self._drained}, timeout=_LAST_WAIT_S)
