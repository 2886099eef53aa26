"""A client behind any ASGI server: the slow, obvious twin of `native_client.py`.

One task per request waits in `receive()` from the moment the body is read: through the queue, the wait for
the first byte, and the answer. Why not rely on `send()`: uvicorn's returns silently once the client has gone,
so a relay without a watcher would drink an engine's whole answer for nobody.
"""

from __future__ import annotations

import asyncio

from sluice_gateway import body
from sluice_gateway.errors import Failure, Problem
from sluice_gateway.interruption import Interruption
from sluice_gateway.wire import AsgiWire, Receive, Send


class AsgiClient(AsgiWire):
    """`Source` and `Wire` over ASGI's `receive` and `send`."""

    __slots__ = (
        "_headers",
        "_interruption",
        "_receive",
        "_stall_timer",
        "_watcher",
        "_write_timeout_s",
        "_writing_since",
    )

    def __init__(
        self, receive: Receive, send: Send, headers: dict[bytes, bytes], write_timeout_s: float
    ) -> None:
        """A write may take `write_timeout_s`; a client that reads nothing for so long is cut off."""
        super().__init__(self._guard(send))
        self._receive = receive
        self._headers = headers
        self._write_timeout_s = write_timeout_s
        self._writing_since: float | None = None
        self._interruption: Interruption | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._stall_timer: asyncio.TimerHandle | None = None

    async def read(self, limit: int, timeout_s: float) -> bytes | Problem:
        """See `Source`."""
        return await body.read_body(self._receive, self._headers, limit, timeout_s)

    def watch(self, interruption: Interruption) -> None:
        """See `Source`."""
        self._interruption = interruption
        self._watcher = asyncio.get_running_loop().create_task(self._wait_for_disconnect(interruption))

    def unwatch(self) -> None:
        """See `Source`."""
        self._interruption = None
        if self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    async def _wait_for_disconnect(self, interruption: Interruption) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        interruption.interrupt(Failure.CLIENT_GONE)

    def _guard(self, send: Send) -> Send:
        """A `send` under the write deadline: one timer looks now and then whether a write takes too long."""

        async def guarded(message: dict[str, object]) -> None:
            loop = asyncio.get_running_loop()
            self._writing_since = loop.time()
            if self._stall_timer is None and self._interruption is not None:
                self._check_later(loop, self._write_timeout_s)
            await send(message)
            self._writing_since = None

        return guarded  # type: ignore[return-value]

    def _check_later(self, loop: asyncio.AbstractEventLoop, delay_s: float) -> None:
        self._stall_timer = loop.call_later(delay_s, self._check_stall, loop)

    def _check_stall(self, loop: asyncio.AbstractEventLoop) -> None:
        since = self._writing_since
        left_s = self._write_timeout_s - (loop.time() - since if since is not None else 0.0)
        if left_s > 0:
            self._check_later(loop, left_s)
        elif self._interruption is not None:
            self._interruption.interrupt(Failure.CLIENT_STALLED)
