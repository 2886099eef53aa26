"""A worker's end of the socket to its supervisor.

What the supervisor wants is done here, in the worker's event loop; what is asked of this worker but concerns
all (`Overseer`) is passed on. When the supervisor is gone, the worker stops.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from typing import TypeVar

from sluice_gateway.config import ConfigError
from sluice_gateway.gateway import Gateway
from sluice_gateway.shutdown import Shutdown
from sluice_gateway.supervisor import messages
from sluice_gateway.supervisor.messages import Channel, ToWorker
from sluice_gateway.supervisor.samples import collect

REPORT_S = 1.0
"""A worker that dies takes at most so much of its counters with it."""
_ANSWER_S = 120.0

_log = logging.getLogger("sluice")
_T = TypeVar("_T")


class SupervisorLink:
    """Implements `Overseer`."""

    def __init__(
        self, gateway: Gateway, channel: Channel[ToWorker], shutdown: Shutdown, configuration: int
    ) -> None:
        """`configuration`: the number of the one that the gateway was made with."""
        self._gateway = gateway
        self._channel = channel
        self._shutdown = shutdown
        self._numbers = {1: configuration}
        self._started = asyncio.Event()
        self._asked = itertools.count(1)
        self._pages: dict[int, asyncio.Future[bytes]] = {}
        self._reloads: dict[int, asyncio.Future[int]] = {}
        gateway.on_retired(self._tell_retired)

    def tell_started(self) -> None:
        """Connections are accepted."""
        self._started.set()
        self._channel.send(messages.Started())

    def tell_drained(self) -> None:
        """No request is left, and none will come."""
        self._channel.send(messages.Drained())

    def tell_ready(self, models: list[str], *, needs_key: bool) -> None:
        """An engine can serve."""
        self._channel.send(messages.Ready(models, needs_key))

    async def metrics_page(self) -> bytes:
        """See `Overseer`."""
        number = next(self._asked)
        return await self._ask(messages.PageWanted(number), number, self._pages)

    async def reload(self) -> int:
        """See `Overseer`."""
        number = next(self._asked)
        return await self._ask(messages.ReloadWanted(number), number, self._reloads)

    async def report(self) -> None:
        """Send the metrics once a second, for ever."""
        await self._started.wait()
        while True:
            self._report()
            await asyncio.sleep(REPORT_S)

    async def listen(self) -> None:
        """Do what the supervisor says, until it is gone."""
        applying: asyncio.Task[None] | None = None
        while (message := await self._channel.receive()) is not None:
            if isinstance(message, messages.Configure):
                applying = asyncio.create_task(self._apply(message, applying))
            else:
                self._heed(message)
        _log.error("the supervisor is gone; stopping")
        self._shutdown.released.set()
        self._shutdown.ask(self._gateway.settings.server.interrupt_drain_s)

    async def aclose(self) -> None:
        """Report a last time, when everything has ended."""
        self._report()
        await self._channel.aclose()

    def _heed(self, message: ToWorker) -> None:
        match message:
            case messages.Drain(limit_s, linger):
                if linger:
                    self._shutdown.released.clear()
                self._shutdown.ask(limit_s)
            case messages.Leave():
                self._shutdown.released.set()
            case messages.Collect():
                self._report()
            case messages.EngineNews(engine, problem):
                self._gateway.report_engine(engine, problem)
            case messages.Page(number, page):
                _resolve(self._pages.pop(number, None), page)
            case messages.Reloaded(number, configuration, problem):
                wanted = self._reloads.pop(number, None)
                _resolve(wanted, ConfigError(problem) if problem else configuration)

    def _report(self) -> None:
        self._channel.send(messages.Report(collect(self._gateway.metrics.registry)))

    async def _apply(self, wanted: messages.Configure, before: asyncio.Task[None] | None) -> None:
        """Reload, after the start and after the reload before."""
        await self._started.wait()
        if before is not None:
            await before
        problem = None
        try:
            number = await self._gateway.reload(wanted.settings)
            self._numbers[number] = wanted.number
        except ConfigError as error:
            problem = str(error)
        except Exception as error:
            _log.exception("the configuration was not reloaded")
            problem = f"{type(error).__name__}: {error}"
        self._channel.send(messages.Applied(wanted.number, problem))

    def _tell_retired(self, number: int) -> None:
        self._channel.send(messages.Retired(self._numbers.pop(number)))

    async def _ask(
        self, question: messages.Message, number: int, waiting: dict[int, asyncio.Future[_T]]
    ) -> _T:
        answer: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        waiting[number] = answer
        self._channel.send(question)
        try:
            async with asyncio.timeout(_ANSWER_S):
                return await answer
        finally:
            waiting.pop(number, None)


def _resolve(future: asyncio.Future[_T] | None, answer: _T | Exception) -> None:
    if future is None or future.done():
        return
    if isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)
