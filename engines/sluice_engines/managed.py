"""A local engine as a supervised child: started, watched, started again with a growing delay when it dies.

    starting ──► ready ──► died ──► (delay) ──► starting ...
        └────────────────────┘        `stop` from anywhere ──► stopped

Guarantees. The engine runs in a session of its own, so a terminal's Ctrl-C reaches it only through `stop`,
which ends the whole process group: SIGTERM, and SIGKILL after `stop_grace_s`. When an engine dies, what it
leaves of its group is killed before the next one starts. An engine never outlives the process that manages
it, not even after `kill -9`: see `warden.py`.

Knows nothing of adapters or routing: readiness is a path that answers 2xx.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from enum import StrEnum

import msgspec

from sluice_engines.child_process import ChildProcess
from sluice_engines.page import get_page
from sluice_engines.transport import Transport, UpstreamError

READY_POLL_S = 0.05
READY_POLL_TIMEOUT_S = 2.0


class ProcessState(StrEnum):
    """Where a managed engine is in its life."""

    STARTING = "starting"
    """The process was started."""
    READY = "ready"
    """It answers on its ready URL."""
    DIED = "died"
    """It ended by itself, or was killed because it did not become ready in time."""
    STOPPED = "stopped"
    """It ended because of `stop`; nothing follows."""


class ProcessEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A change of state."""

    state: ProcessState
    pid: int | None = None
    """Of the engine's first process; `None` if it never started."""
    exit_code: int | None = None
    """With `DIED`; negative for a signal, `None` when unknown."""
    restart_in_s: float | None = None
    """With `DIED`: the delay before the next start."""


class ProcessSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What to run, and how patiently."""

    name: str
    """Prefix of its log lines."""
    argv: tuple[str, ...]
    base_url: str
    """Where the engine is to be found once it runs."""
    ready_path: str
    """Polled with GET until it answers 2xx."""
    env: Mapping[str, str] | None = None
    """The whole environment; `None` passes on this process's own."""
    cwd: str | None = None
    ready_timeout_s: float = 300.0
    stop_grace_s: float = 5.0
    """Between SIGTERM and SIGKILL."""
    restart_base_s: float = 0.5
    """Delay after the first death; doubles with each further one."""
    restart_max_s: float = 30.0
    stable_after_s: float = 60.0
    """An engine that was ready for this long has recovered: its next death counts as the first."""


class ManagedProcess:
    """Supervises one engine."""

    def __init__(
        self,
        spec: ProcessSpec,
        *,
        transport: Transport,
        on_event: Callable[[ProcessEvent], None],
        log: Callable[[str], None],
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        random: Callable[[], float],
    ) -> None:
        """Starts nothing yet.

        `on_event` and `log` are called in the event loop and must not raise. `log` gets the engine's output,
        a line at a time without the line feed, as `[name] line`. `clock` gives monotonic seconds; `random` is
        uniform in [0, 1) and spreads restarts.
        """
        self._spec = spec
        self._transport = transport
        self._on_event = on_event
        self._log = log
        self._clock = clock
        self._sleep = sleep
        self._random = random
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to supervise, in a task of the running loop. Raises `RuntimeError` when already started."""
        if self._task is not None:
            raise RuntimeError(f"{self._spec.name} is already supervised")
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self._supervise(), name=f"engine {self._spec.name}")

    async def stop(self) -> None:
        """End the engine and the supervision. Idempotent. Returns when no process of the group is left."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.wait([self._task])
        if not self._task.cancelled() and (error := self._task.exception()) is not None:
            raise error

    async def _supervise(self) -> None:
        deaths = 0
        try:
            while True:
                ready_for_s, event = await self._live()
                deaths = 1 if ready_for_s >= self._spec.stable_after_s else deaths + 1
                delay_s = self._restart_delay_s(deaths)
                self._on_event(msgspec.structs.replace(event, restart_in_s=delay_s))
                await self._sleep(delay_s)
        finally:
            self._on_event(ProcessEvent(state=ProcessState.STOPPED))

    def _restart_delay_s(self, deaths: int) -> float:
        """Exponential, with the upper half left to chance so that engines do not restart in step."""
        delay_s = min(self._spec.restart_max_s, self._spec.restart_base_s * 2.0 ** min(deaths - 1, 30))
        return delay_s * (0.5 + 0.5 * self._random())

    async def _live(self) -> tuple[float, ProcessEvent]:
        """One life: seconds it was ready for, and its death. Cancelling ends it in good order."""
        spec, ready_for_s = self._spec, 0.0
        try:
            child = await ChildProcess.start(
                spec.argv, env=spec.env, cwd=spec.cwd, grace_s=spec.stop_grace_s, log=self._log_line
            )
        except OSError as error:
            self._log_line(f"cannot be started: {error}")
            return ready_for_s, ProcessEvent(state=ProcessState.DIED)
        try:
            await child.started()
            self._on_event(ProcessEvent(state=ProcessState.STARTING, pid=child.pid))
            if await self._becomes_ready(child):
                ready_at = self._clock()
                self._on_event(ProcessEvent(state=ProcessState.READY, pid=child.pid))
                await child.wait()
                ready_for_s = self._clock() - ready_at
        finally:
            await _uninterrupted(child.end())
        return ready_for_s, ProcessEvent(state=ProcessState.DIED, pid=child.pid, exit_code=child.exit_code)

    def _log_line(self, line: str) -> None:
        self._log(f"[{self._spec.name}] {line}")

    async def _becomes_ready(self, child: ChildProcess) -> bool:
        """False when it ended first, or took too long."""
        deadline = self._clock() + self._spec.ready_timeout_s
        while not child.ended:
            if await self._answers():
                return True
            if self._clock() >= deadline:
                self._log_line(f"not ready after {self._spec.ready_timeout_s:g} s; ending it")
                return False
            await self._sleep(READY_POLL_S)
        return False

    async def _answers(self) -> bool:
        try:
            spec = self._spec
            page = await get_page(
                self._transport, spec.base_url, spec.ready_path, timeout_s=READY_POLL_TIMEOUT_S
            )
        except UpstreamError:
            return False
        return page.is_success


async def _uninterrupted(work: Coroutine[object, object, None]) -> None:
    """Finish `work`, which takes a bounded time, even when cancelled meanwhile; then be cancelled."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
