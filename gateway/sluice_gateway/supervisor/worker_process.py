"""A worker as the supervisor sees it: a process, a socket to it, and what it last said."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable, Sequence

import msgspec

from sluice_gateway import launch
from sluice_gateway.supervisor import messages
from sluice_gateway.supervisor.messages import Channel, Configure, FromWorker
from sluice_gateway.supervisor.samples import Family

MODULE = "sluice_gateway.supervisor.worker"
_LAST_MESSAGE_S = 2.0
_ABORT_S = 2.0


class WorkerProcess:
    """One life of a worker. Whoever spawned it must await `ended`."""

    def __init__(
        self, process: Process, channel: Channel[FromWorker], configuration: int, clock: Callable[[], float]
    ) -> None:
        """See `spawn`."""
        self._process = process
        self._channel = channel
        self._clock = clock
        self._reported = asyncio.Event()
        self._applying: dict[int, asyncio.Future[str | None]] = {}
        self.configuration = configuration
        self.has_requests_of = {configuration}
        """Configurations: its own, and older ones that still have requests."""
        self.families: Sequence[Family] = ()
        """As it last reported them."""
        self.heard_s = clock()
        """When it last said anything."""
        self.is_started = False
        self.is_drained = False

    @classmethod
    async def spawn(
        cls, listener: socket.socket, configure: Configure, clock: Callable[[], float]
    ) -> WorkerProcess:
        """Start a process that serves on `listener`."""
        ours, theirs = socket.socketpair()
        inherited = (listener.fileno(), theirs.fileno())
        command = launch.command(MODULE, *map(str, inherited))
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *command, pass_fds=inherited, stdin=DEVNULL, start_new_session=True
            )
        channel = await Channel.open(ours, msgspec.msgpack.Decoder[FromWorker](FromWorker))
        channel.send(configure)
        return cls(process, channel, configure.number, clock)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    async def listen(self, hear: Callable[[WorkerProcess, FromWorker], None]) -> int:
        """Pass on what it says until it has ended; its exit status, negative for a signal."""
        while (message := await self._channel.receive()) is not None:
            self.heard_s = self._clock()
            self._note(message)
            hear(self, message)
        for answer in self._applying.values():
            if not answer.done():
                answer.set_result("the worker ended meanwhile")
        await self._channel.aclose()
        try:
            async with asyncio.timeout(_LAST_MESSAGE_S):
                return await self._process.wait()
        except TimeoutError:
            self.kill()
            return await self._process.wait()

    def send(self, message: messages.Message) -> None:
        """Without waiting."""
        self._channel.send(message)

    async def collect(self) -> None:
        """Have `families` brought up to date."""
        self._reported.clear()
        self.send(messages.Collect())
        await self._reported.wait()

    async def apply(self, configure: Configure) -> str | None:
        """Have another configuration put in force; what was wrong, or `None`."""
        answer: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._applying[configure.number] = answer
        self.send(configure)
        return await answer

    async def abort(self) -> None:
        """Have it write down where it hangs, and die."""
        self._signal(signal.SIGABRT)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ABORT_S):
                await self._process.wait()
        self.kill()

    def kill(self) -> None:
        """At once."""
        self._signal(signal.SIGKILL)

    def _note(self, message: FromWorker) -> None:
        match message:
            case messages.Started():
                self.is_started = True
            case messages.Drained():
                self.is_drained = True
            case messages.Retired(number):
                self.has_requests_of.discard(number)
            case messages.Report(families):
                self.families = families
                self._reported.set()
            case messages.Applied(number, problem):
                if problem is None:
                    self.configuration = number
                    self.has_requests_of.add(number)
                answer = self._applying.pop(number, None)
                if answer is not None and not answer.done():
                    answer.set_result(problem)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)
