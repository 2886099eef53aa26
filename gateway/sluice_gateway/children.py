"""The managed engines: local processes that live and die with the gateway.

What to run comes from the settings, how to keep it running is `sluice_engines.managed`'s. A configuration
*holds* its engines: an engine that the next configuration holds too, unchanged, goes on running at the same
address, and one that nobody holds any more is stopped. Knows nothing of requests: who holds an engine decides
how long it is needed.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import msgspec

from sluice_engines.adapter import EngineAdapter
from sluice_engines.managed import ManagedProcess, ProcessEvent, ProcessSpec, ProcessState
from sluice_engines.registry import AdapterError, create_adapter, load_adapters
from sluice_engines.start_command import NotInstalledError, StartCommand, command_line, start_command
from sluice_gateway.config import ConfigError
from sluice_gateway.managed_ports import ManagedPorts
from sluice_gateway.settings import Backend, Managed
from sluice_gateway.upstream import HttpTransport

_STOP_GRACE_S = 4.0
"""With the drain before it, within the ten seconds that a supervisor usually gives."""
_log = logging.getLogger("sluice")

News = Callable[[str, str | None], None]
"""Gets an engine's name, and why it cannot serve, or `None` when it may be able to from now on."""


@dataclass(eq=False)
class _Child:
    """One engine, and who needs it."""

    backend: Backend
    url: str
    port: int
    spec: ProcessSpec
    holders: int = 0
    process: ManagedProcess | None = None


@dataclass(frozen=True, eq=False)
class Held:
    """What one configuration needs."""

    backends: tuple[Backend, ...]
    """The configuration's; managed ones with the address that they have, and nothing left to manage."""
    children: tuple[_Child, ...] = field(repr=False)


class Children:
    """All managed engines of one gateway."""

    def __init__(self, news: News) -> None:
        """`news` is called in the event loop and must not raise."""
        self._news = news
        self._ports = ManagedPorts()
        self._children: list[_Child] = []
        self._transport = HttpTransport()

    def hold(self, backends: Sequence[Backend]) -> Held:
        """Reserve what a configuration needs; starts nothing.

        Raises `ConfigError` when a program to run is not installed, and then holds nothing.
        """
        found: list[_Child] = []
        try:
            placed = tuple(self._placed(backend, found) for backend in backends)
        except ConfigError:
            self._give_up(found)
            raise
        return Held(placed, tuple(found))

    def start(self, held: Held) -> None:
        """Start what does not run yet. Does not wait until it is ready."""
        for child in held.children:
            if child.process is None:
                child.process = self._supervised(child)
                child.process.start()

    async def release(self, held: Held) -> None:
        """Stop what nobody else holds."""
        unused = self._give_up(held.children)
        await asyncio.gather(*(child.process.stop() for child in unused if child.process is not None))

    async def aclose(self) -> None:
        """Stop all of them, at the same time. No process is left when it returns."""
        running = [child.process for child in self._children if child.process is not None]
        await asyncio.gather(*(process.stop() for process in running))
        self._ports.close()
        await self._transport.aclose()

    def _placed(self, backend: Backend, found: list[_Child]) -> Backend:
        if backend.managed is None:
            return backend
        child = next((c for c in self._children if c.backend == backend), None)
        if child is None:
            child = self._new(backend)
            self._children.append(child)
        child.holders += 1
        found.append(child)
        return msgspec.structs.replace(backend, url=child.url, managed=None)

    def _new(self, backend: Backend) -> _Child:
        try:
            adapter = create_adapter(load_adapters([backend.adapter])[backend.adapter], backend.options)
        except AdapterError as error:
            raise ConfigError(f"Backend '{backend.name}': {error}") from error
        url = backend.urls[0] if backend.urls else ""
        port = 0 if url else self._ports.choose(adapter.default_port)
        url = url or f"http://127.0.0.1:{port}"
        try:
            return _Child(backend, url, port, _spec(backend, url, adapter))
        except ConfigError:
            self._ports.release(port)
            raise

    def _give_up(self, children: Sequence[_Child]) -> list[_Child]:
        """Let go of them; those that nobody holds now."""
        for child in children:
            child.holders -= 1
        unused = [child for child in children if not child.holders]
        for child in unused:
            self._children.remove(child)
            self._ports.release(child.port)
        return unused

    def _supervised(self, child: _Child) -> ManagedProcess:
        return ManagedProcess(
            child.spec,
            transport=self._transport,
            on_event=lambda event: self._note(child.backend.name, event),
            log=_log.info,
            clock=time.monotonic,
            sleep=asyncio.sleep,
            random=random.random,
        )

    def _note(self, name: str, event: ProcessEvent) -> None:
        if event.state is ProcessState.DIED:
            _log.warning("engine %s: %s", name, _obituary(event))
            self._news(name, _obituary(event))
        elif event.state is ProcessState.READY:
            self._news(name, None)


def _obituary(event: ProcessEvent) -> str:
    if event.pid is None:
        return f"its process could not be started; next try in {event.restart_in_s or 0:.1f} s"
    code = "" if event.exit_code is None else f" with status {event.exit_code}"
    return f"its process ended{code}; next start in {event.restart_in_s or 0:.1f} s"


def _spec(backend: Backend, url: str, adapter: EngineAdapter) -> ProcessSpec:
    managed = backend.managed
    assert managed is not None
    port = str(urlsplit(url).port)
    words = (*_command(backend, managed, adapter), *managed.args)
    return ProcessSpec(
        name=backend.name,
        argv=tuple(word.replace("{port}", port) for word in words),
        base_url=url,
        ready_path=adapter.ready_path,
        ready_timeout_s=managed.start_timeout_s,
        stop_grace_s=_STOP_GRACE_S,
    )


def _command(backend: Backend, managed: Managed, adapter: EngineAdapter) -> tuple[str, ...]:
    """The configuration's command, or what the adapter knows. Raises `ConfigError` without a program."""
    known = start_command(adapter)
    if managed.command:
        known = StartCommand(program=managed.command[0], arguments=managed.command[1:])
    assert known is not None, "the configuration is checked"
    try:
        return command_line(known)
    except NotInstalledError as error:
        raise ConfigError(f"Backend '{backend.name}': {error}") from error
