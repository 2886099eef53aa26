"""The supervisor: starts the workers, speaks for all of them, and ends them in good order.

A reload is validated here, once, and then put in force worker by worker: one that cannot be done in the first
worker stops there. A worker that starts later gets the configuration in force. Managed engines are run here;
workers only know their address. An engine that the new configuration does not have is stopped when the last
request of the old one has ended in every worker.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Coroutine
from typing import Any

from sluice_gateway import banner
from sluice_gateway.config import ConfigError
from sluice_gateway.listening import listen_again, listen_for_each, url_of
from sluice_gateway.reload import refuse_fixed
from sluice_gateway.settings import Settings
from sluice_gateway.supervisor import messages
from sluice_gateway.supervisor.engines import HeldEngines
from sluice_gateway.supervisor.messages import Configure, FromWorker
from sluice_gateway.supervisor.metrics_page import MetricsPage
from sluice_gateway.supervisor.slot import Slot
from sluice_gateway.supervisor.worker_process import WorkerProcess

_APPLY_S = 60.0
_LAST_WORDS_S = 15.0
"""After the drain: connections close, ledgers reach the store."""
_log = logging.getLogger("sluice")


class Supervisor:
    """Implements `Overseer`. `run` is its whole life."""

    def __init__(self, settings: Settings, read: Callable[[], Settings], say: Callable[[str], None]) -> None:
        """`read` reads the configuration again; `say` prints to the user. Opens the sockets, starts nothing.

        Raises `ConfigError`.
        """
        self.settings = settings
        self._read = read
        self._say = say
        self._engines = HeldEngines(self._tell_engine)
        self._configure = Configure(1, self._engines.hold(1, settings))
        self._slots = self._make_slots(settings)
        self._metrics = MetricsPage(self._workers)
        self._reloading = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._coming = 0
        """The configuration that is being put in force."""
        self._greeted = False
        self._ever_started = False
        self._stopping = False

    async def run(self) -> bool:
        """Until `stop`, or until it is clear that no worker can start, which is false."""
        self._engines.start(1)
        keeping = [asyncio.create_task(self._keep(slot)) for slot in self._slots]
        try:
            await asyncio.gather(*keeping)
        finally:
            for slot in self._slots:
                slot.close()
            await self._engines.aclose()
        return self._ever_started

    def stop(self, drain_s: float) -> None:
        """Have every worker stop, with so much patience; called again, at once."""
        for slot in self._slots:
            slot.leave()
        for worker in self._workers():
            worker.send(messages.Drain(drain_s, linger=True))
        if not self._stopping:
            self._stopping = True
            self._later(self._insist(drain_s + _LAST_WORDS_S))
        else:
            self._later(self._insist(_LAST_WORDS_S))

    async def metrics_page(self) -> bytes:
        """See `Overseer`."""
        return await self._metrics.render()

    async def reload(self) -> int:
        """See `Overseer`."""
        async with self._reloading:
            settings = await asyncio.to_thread(self._read)
            refuse_fixed(self.settings, settings)
            before = self._configure
            new = Configure(before.number + 1, self._engines.hold(before.number + 1, settings))
            self._coming = new.number
            self._engines.start(new.number)
            try:
                await self._put_in_force(new)
                self.settings = settings
            finally:
                self._coming = 0
                self._later(self._stop_engines())
            _log.info("configuration %d is in force in all workers", new.number)
            return new.number

    async def _put_in_force(self, new: Configure) -> None:
        """Worker by worker. Raises `ConfigError` when the first one cannot."""
        while waiting := [w for w in self._workers() if w.is_started and w.configuration < new.number]:
            worker = waiting[0]
            problem = await self._apply(worker, new)
            if problem is None:
                self._configure = new
            elif worker not in self._workers():
                continue
            elif self._configure is not new:
                raise ConfigError(problem)
            else:
                _log.error("worker process %d cannot reload and is replaced: %s", worker.pid, problem)
                worker.configuration = new.number
                worker.send(messages.Drain(self.settings.server.drain_s, linger=False))
        self._configure = new
        for starting in self._workers():
            if starting.configuration < new.number:
                starting.send(new)

    async def _apply(self, worker: WorkerProcess, new: Configure) -> str | None:
        try:
            async with asyncio.timeout(_APPLY_S):
                return await worker.apply(new)
        except TimeoutError:
            return "it did not answer"

    async def _keep(self, slot: Slot) -> None:
        await slot.keep(
            lambda: self._configure, self._hear, self._ended, self.settings.server.worker_timeout_s
        )

    def _hear(self, worker: WorkerProcess, message: FromWorker) -> None:
        match message:
            case messages.Started():
                self._ever_started = True
            case messages.Ready(models, needs_key) if not self._greeted:
                self._greeted = True
                self._say(banner.render(url_of(self.settings.server), models, needs_key=needs_key))
            case messages.Drained():
                self._dismiss()
            case messages.Retired():
                self._later(self._stop_engines())
            case messages.PageWanted(number):
                self._later(self._answer_page(worker, number))
            case messages.ReloadWanted(number):
                self._later(self._answer_reload(worker, number))

    async def _answer_page(self, worker: WorkerProcess, number: int) -> None:
        worker.send(messages.Page(number, await self.metrics_page()))

    async def _answer_reload(self, worker: WorkerProcess, number: int) -> None:
        configuration, problem = 0, None
        try:
            configuration = await self.reload()
        except ConfigError as error:
            problem = str(error)
        worker.send(messages.Reloaded(number, configuration, problem))

    def _ended(self, worker: WorkerProcess, status: int) -> None:
        self._metrics.keep(worker)
        self._later(self._stop_engines())
        if not self._ever_started:
            for slot in self._slots:
                slot.leave()
            for other in self._workers():
                other.kill()
        elif self._stopping:
            self._dismiss()
        elif status != 0:
            self._metrics.replaced += 1

    async def _stop_engines(self) -> None:
        """Those that no worker needs any more."""
        needed = {self._configure.number, self._coming}
        await self._engines.keep_only(needed.union(*(w.has_requests_of for w in self._workers())))

    def _dismiss(self) -> None:
        """Let the workers go when the last one has no request any more: until then all refuse new ones."""
        workers = self._workers()
        if self._stopping and all(worker.is_drained for worker in workers):
            for worker in workers:
                worker.send(messages.Leave())

    def _tell_engine(self, engine: str, problem: str | None) -> None:
        for worker in self._workers():
            worker.send(messages.EngineNews(engine, problem))

    async def _insist(self, after_s: float) -> None:
        await asyncio.sleep(after_s)
        for worker in self._workers():
            worker.kill()

    def _workers(self) -> list[WorkerProcess]:
        return [slot.worker for slot in self._slots if slot.worker is not None]

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _make_slots(self, settings: Settings) -> list[Slot]:
        sockets = listen_for_each(settings, settings.server.workers)
        shared = len(set(sockets)) < len(sockets)
        again = None if shared else lambda: listen_again(settings.server)
        return [
            Slot(index, listener, again, time.monotonic, random.random)
            for index, listener in enumerate(sockets, 1)
        ]
