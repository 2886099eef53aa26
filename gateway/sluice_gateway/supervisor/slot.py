"""One of the N places that a worker can have: its socket, and whoever serves on it now.

A worker that ends is followed by another: at once the first time, later with a growing delay. While a worker
is missing only for a moment, connections wait in its socket; while it is missing for longer, the socket is
closed, so that the kernel deals connections to the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable

from sluice_gateway.supervisor.messages import Configure, Drain, FromWorker
from sluice_gateway.supervisor.worker_process import WorkerProcess

_START_S = 60.0
"""A worker that does not accept connections after this long is replaced."""
_LOOK_S = 0.5
_FIRST_DELAY_S = 0.5
_MAX_DELAY_S = 30.0
_STABLE_S = 60.0
"""A worker that lived this long was well: the next death counts as the first."""
_KEEP_SOCKET_S = 1.0

_log = logging.getLogger("sluice")


class Slot:
    """Keeps one worker running."""

    def __init__(
        self,
        index: int,
        listener: socket.socket,
        listen_again: Callable[[], socket.socket] | None,
        clock: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        """`listen_again` opens the slot's socket anew; `None` when all slots share one."""
        self._index = index
        self._listener: socket.socket | None = listener
        self._listen_again = listen_again
        self._clock = clock
        self._random = random
        self._leaving = asyncio.Event()
        self.worker: WorkerProcess | None = None

    async def keep(
        self,
        configure: Callable[[], Configure],
        hear: Callable[[WorkerProcess, FromWorker], None],
        ended: Callable[[WorkerProcess, int], None],
        timeout_s: float,
    ) -> None:
        """Keep a worker running until `leave`. `configure` says with what; `hear` and `ended` are told."""
        deaths = 0
        while not self._leaving.is_set():
            listener = self._listening()
            began_s = self._clock()
            self.worker = worker = await WorkerProcess.spawn(listener, configure(), self._clock)
            if configure().number != worker.configuration:  # a reload came in between
                worker.send(configure())
            if self._leaving.is_set():
                worker.send(Drain(0.0, linger=False))
            status = await self._live(worker, hear, timeout_s)
            self.worker = None
            ended(worker, status)
            deaths = 1 if self._clock() - began_s > _STABLE_S else deaths + 1
            if not self._leaving.is_set():
                await self._rest(worker, status, self._delay_s(deaths))
        self.close()

    def leave(self) -> None:
        """The next end of the worker is the last."""
        self._leaving.set()

    def close(self) -> None:
        """Close the socket."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def _live(
        self, worker: WorkerProcess, hear: Callable[[WorkerProcess, FromWorker], None], timeout_s: float
    ) -> int:
        watching = asyncio.create_task(self._watch(worker, timeout_s))
        try:
            return await worker.listen(hear)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def _watch(self, worker: WorkerProcess, timeout_s: float) -> None:
        """End it when it says nothing for too long. A supervisor that did not run itself blames nobody."""
        while True:
            looked_s = self._clock()
            await asyncio.sleep(_LOOK_S)
            now = self._clock()
            if now - looked_s > 2 * _LOOK_S:
                worker.heard_s = now
            silent_s = now - worker.heard_s
            if silent_s > (timeout_s if worker.is_started else max(timeout_s, _START_S)):
                text = "worker %d (process %d) has not answered for %.1f s and is replaced; it hangs in:"
                _log.error(text, self._index, worker.pid, silent_s)
                await worker.abort()
                return

    async def _rest(self, worker: WorkerProcess, status: int, delay_s: float) -> None:
        text = "worker %d (process %d) ended %s; next start in %.1f s"
        _log.warning(text, self._index, worker.pid, _how(status), delay_s)
        if delay_s > _KEEP_SOCKET_S and self._listen_again is not None:
            self.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await self._leaving.wait()

    def _delay_s(self, deaths: int) -> float:
        """Exponential after the first, with the upper half left to chance, so that workers do not start in
        step."""
        if deaths <= 1:
            return 0.0
        delay_s = min(_MAX_DELAY_S, _FIRST_DELAY_S * 2.0 ** min(deaths - 2, 30))
        return delay_s * (0.5 + 0.5 * self._random())

    def _listening(self) -> socket.socket:
        if self._listener is None:
            assert self._listen_again is not None
            self._listener = self._listen_again()
        return self._listener


def _how(status: int) -> str:
    return f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
