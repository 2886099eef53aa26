"""Noticing that a client has left, or has stopped reading, in every phase of its request.

One task per request waits in `receive()` from the moment the body is read: through the queue, the wait for
the first byte, and the answer. On a disconnect it cancels the request's own task once; what unwinds frees
the queue place, the limits and the engine's slot. The same object carries the other reasons to stop a
request from outside: a client that does not read, and the gateway's shutdown.

Why not rely on `send()`: uvicorn's returns silently once the client has gone, so a relay without a watcher
would drink an engine's whole answer for nobody.
"""

from __future__ import annotations

import asyncio
from typing import Any

from sluice_gateway.errors import Failure
from sluice_gateway.wire import Receive, Send


class Watch:
    """Watches over the task that serves one request. At most one interruption, the first one's cause."""

    __slots__ = (
        "_answered",
        "_loop",
        "_receive",
        "_stall_timer",
        "_task",
        "_watcher",
        "_write_timeout_s",
        "_writing_since",
        "cause",
    )

    def __init__(self, receive: Receive, task: asyncio.Task[Any], write_timeout_s: float) -> None:
        """`task` is what an interruption cancels; a write may take `write_timeout_s`."""
        self._receive = receive
        self._task = task
        self._loop = task.get_loop()
        self._answered = False
        self._watcher: asyncio.Task[None] | None = None
        self._write_timeout_s = write_timeout_s
        self._writing_since: float | None = None
        self._stall_timer: asyncio.TimerHandle | None = None
        self.cause: Failure | None = None
        """Why the task was cancelled; `None` when it was not, or not from here."""

    def start(self) -> None:
        """Begin to watch. The request's body must have been read to its end."""
        self._watcher = self._loop.create_task(self._wait_for_disconnect())

    def stop(self) -> None:
        """End all watching: nothing is interrupted from here on. Idempotent."""
        if self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None
        if self._stall_timer is not None:
            self._stall_timer.cancel()

    def interrupt(self, cause: Failure) -> None:
        """Cancel the request's task, once."""
        if self.cause is None and self._watcher is not None and not self._answered:
            self.cause = cause
            self._task.cancel()

    def guard(self, send: Send) -> Send:
        """A `send` under the write deadline.

        One timer for the whole response looks now and then whether a write is taking too long, which costs a
        write two assignments.
        """

        async def guarded(message: Any) -> None:
            self._writing_since = self._loop.time()
            if self._stall_timer is None:
                self._check_later(self._write_timeout_s)
            await send(message)
            self._writing_since = None
            if message.get("more_body") is False:
                # From here on `receive` reports a disconnect although nobody has left.
                self._answered = True

        return guarded

    async def _wait_for_disconnect(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.interrupt(Failure.CLIENT_GONE)

    def _check_later(self, delay_s: float) -> None:
        self._stall_timer = self._loop.call_later(delay_s, self._check_stall)

    def _check_stall(self) -> None:
        since = self._writing_since
        left_s = self._write_timeout_s - (self._loop.time() - since if since is not None else 0.0)
        if left_s <= 0:
            self.interrupt(Failure.CLIENT_STALLED)
        else:
            self._check_later(left_s)
