"""The managed engines: local processes that live and die with the gateway.

What to run comes from the settings, how to keep it running is `sluice_engines.managed`'s. What happens to a
child is told to the health monitor at once, so that `/ready` does not wait for a probe to notice a death.
"""

from __future__ import annotations

import asyncio
import logging
import random
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from sluice_engines.base_url import join_base_url
from sluice_engines.managed import ManagedProcess, ProcessEvent, ProcessSpec, ProcessState
from sluice_gateway.config import ConfigError
from sluice_gateway.engines import Engine
from sluice_gateway.health import HealthMonitor
from sluice_gateway.settings import Managed

WORKER_COMMAND = ("sluice-worker", "serve", "--host", "127.0.0.1", "--port", "{port}")
_STOP_GRACE_S = 4.0
"""With the drain before it, within the ten seconds that a supervisor usually gives."""
_log = logging.getLogger("sluice")


class Children:
    """All managed engines of one gateway."""

    def __init__(self, engines: Sequence[Engine], health: HealthMonitor) -> None:
        """Raises `ConfigError` when a program to run is not installed."""
        self._health = health
        self._specs = {e.endpoint.id: _spec(e, m) for e in engines if (m := e.backend.managed) is not None}
        self._client: httpx.AsyncClient | None = None
        self._processes: list[ManagedProcess] = []

    def start(self) -> None:
        """Start all of them. Does not wait until they are ready."""
        if not self._specs:
            return
        self._client = httpx.AsyncClient(trust_env=False, verify=False)
        for endpoint_id, spec in self._specs.items():
            process = self._supervised(endpoint_id, spec, self._client)
            process.start()
            self._processes.append(process)

    async def aclose(self) -> None:
        """Stop all of them, at the same time. No process is left when it returns."""
        await asyncio.gather(*(process.stop() for process in self._processes))
        if self._client is not None:
            await self._client.aclose()

    def _supervised(self, endpoint_id: str, spec: ProcessSpec, client: httpx.AsyncClient) -> ManagedProcess:
        return ManagedProcess(
            spec,
            client=client,
            on_event=lambda event: self._note(endpoint_id, event),
            log=_log.info,
            clock=time.monotonic,
            sleep=asyncio.sleep,
            random=random.random,
        )

    def _note(self, endpoint_id: str, event: ProcessEvent) -> None:
        if event.state is ProcessState.DIED:
            _log.warning("engine %s: %s", endpoint_id, _obituary(event))
            self._health.report_unreachable(endpoint_id, _obituary(event))
        elif event.state is ProcessState.READY:
            self._health.report_suspect(endpoint_id)


def _obituary(event: ProcessEvent) -> str:
    if event.pid is None:
        return f"its process could not be started; next try in {event.restart_in_s or 0:.1f} s"
    code = "" if event.exit_code is None else f" with status {event.exit_code}"
    return f"its process ended{code}; next start in {event.restart_in_s or 0:.1f} s"


def _spec(engine: Engine, managed: Managed) -> ProcessSpec:
    origin, path = join_base_url(engine.endpoint.url, engine.adapter.ready_path)
    port = str(urlsplit(origin).port)
    words = (*(managed.command or WORKER_COMMAND), *managed.args)
    argv = tuple(word.replace("{port}", port) for word in words)
    return ProcessSpec(
        name=engine.endpoint.id,
        argv=(_program(argv[0], engine.endpoint.id), *argv[1:]),
        ready_url=origin + path,
        ready_timeout_s=managed.start_timeout_s,
        stop_grace_s=_STOP_GRACE_S,
    )


def _program(name: str, backend: str) -> str:
    """The program's path. One installed beside this Python wins: a virtual environment need not be
    activated."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.is_file() else shutil.which(name)
    if found is None:
        raise ConfigError(f"Backend '{backend}': the program '{name}' is not installed, or not on PATH.")
    return found
