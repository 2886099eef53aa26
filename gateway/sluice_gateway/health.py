"""Which engines can serve, found out in the background and from requests that fail.

Each engine has a task that probes it every `interval_s`, and while it can serve another that reads its load
every `load_interval_s`: an engine that is slow to tell how busy it is, is not for that reason sick.
`failures` bad probes in a row take an engine out; one good probe brings it back. A request that could not
connect takes it out at once and asks for a probe now, so a dead engine costs one failed attempt, not one per
request. An engine inside this process is looked at once, at the start. The router holds the state; this
module reports to it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial

import msgspec

from sluice_engines.load_reader import LoadReader, LoadReading
from sluice_engines.probe import Reading, probe
from sluice_gateway.engines import Engine
from sluice_gateway.settings import Health
from sluice_gateway.told_load import ToldLoad
from sluice_router.routing import Routing
from sluice_router.types import EngineLoad

_STARTING = "has not answered yet"
_PAGES_KNOWN_FOR = 3
"""Intervals after which what an engine's pages said is old."""
_log = logging.getLogger("sluice")


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the gateway can serve."""

    ready: bool
    reason: str
    """One sentence naming the engines that cannot serve, and why."""


class EngineStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one engine beside what the router knows."""

    problem: str
    """Why it cannot serve; empty when it can."""
    version: str | None
    """What it says of itself; `None` when it does not."""
    load_problem: str | None
    """What of its load could not be read at the last attempt, and why."""


class HealthMonitor:
    """Probes the engines and tells the router."""

    def __init__(
        self, engines: Sequence[Engine], router: Routing, settings: Health, clock: Callable[[], float]
    ) -> None:
        self._router = router
        self._clock = clock
        self._probed = {
            e.endpoint.id: _Probed(e, settings, clock, partial(self._record_load, e.endpoint.id))
            for e in engines
        }
        self._tasks: list[asyncio.Task[None]] = []
        self._became_ready = asyncio.Event()
        for endpoint_id in self._probed:
            router.set_health(endpoint_id, False, clock())

    async def start(self) -> None:
        """Begin to probe. Engines inside this process can serve when it returns."""
        for index, probed in enumerate(self._probed.values()):
            if probed.engine.in_process:
                self._apply(probed, await probed.look())
                continue
            self._tasks.append(asyncio.create_task(self._watch(probed)))
            if probed.loads.has_pages:
                # Evenly spread: a hundred pages at once would make every request wait for them.
                first_s = probed.load_interval_s * (index + 1) / len(self._probed)
                self._tasks.append(asyncio.create_task(self._follow(probed, first_s)))

    def adopt(self, before: HealthMonitor) -> None:
        """Believe what another monitor knows of the engines that both have, until a probe says otherwise.

        Before `start`. What an administrator has decided about an engine stays decided too.
        """
        replicas = {replica.endpoint.id: replica for replica in before._router.snapshot().replicas}
        for endpoint_id, probed in self._probed.items():
            old = before._probed.get(endpoint_id)
            if old is None or old.engine.endpoint.url != probed.engine.endpoint.url:
                continue
            replica = replicas[endpoint_id]
            if not probed.engine.backend.models:
                self._router.set_models(endpoint_id, replica.endpoint.models, self._clock())
            if probed.engine.backend.quant is None:
                self._router.set_quant(endpoint_id, replica.endpoint.quant, self._clock())
            if replica.draining:
                self._router.set_draining(endpoint_id, True, self._clock())
            if replica.breaker_forced:
                self._router.force_breaker(endpoint_id, replica.breaker, self._clock())
            probed.healthy, probed.problem, probed.version = old.healthy, old.problem, old.version
            self._router.set_health(endpoint_id, old.healthy, self._clock())
        self._note_readiness()

    async def wait_until_looked(self) -> None:
        """Return when every engine has been probed."""
        for probed in self._probed.values():
            await probed.looked.wait()

    async def aclose(self) -> None:
        """Stop probing. Idempotent."""
        for probed in self._probed.values():
            if probed.told is not None:
                probed.told.forget()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    def readiness(self) -> Readiness:
        """Ready when at least one engine can serve."""
        broken = [f"{name}: {p.problem}" for name, p in self._probed.items() if not p.healthy]
        ready = any(p.healthy for p in self._probed.values())
        if not broken:
            reason = "All engines can serve." if ready else "No engine is configured."
        else:
            reason = f"Cannot serve: {'; '.join(broken)}."
        return Readiness(ready=ready, reason=reason)

    def status(self, endpoint_id: str) -> EngineStatus:
        """Of one engine."""
        probed = self._probed[endpoint_id]
        return EngineStatus(
            problem="" if probed.healthy else probed.problem,
            version=probed.version,
            load_problem=probed.load_problem,
        )

    async def wait_until_ready(self) -> None:
        """Return when an engine can serve for the first time."""
        await self._became_ready.wait()

    def report_unreachable(self, endpoint_id: str, reason: str) -> None:
        """A request, or a supervisor, found the engine gone: take it out now and look again."""
        probed = self._probed.get(endpoint_id)
        if probed is not None:
            self._set(probed, False, reason)
            probed.wake.set()

    def report_suspect(self, endpoint_id: str) -> None:
        """An exchange with the engine broke: look again now, and let that decide."""
        probed = self._probed.get(endpoint_id)
        if probed is not None:
            probed.wake.set()

    def hear_load(self, endpoint_id: str, value: bytes) -> None:
        """An answer of the engine came with a report on its load. Called for every such answer."""
        probed = self._probed.get(endpoint_id)
        if probed is not None and probed.told is not None:
            probed.told.tell(value)

    async def _watch(self, probed: _Probed) -> None:
        while True:
            probed.wake.clear()
            reading = await probed.look()
            if reading.ready and not probed.healthy:
                # Before its first request: how busy it is, and which quantization it has.
                probed.loads.forget()
                self._apply_load(probed, await probed.loads.read())
            self._apply(probed, reading)
            try:
                async with asyncio.timeout(probed.interval_s):
                    await probed.wake.wait()
            except TimeoutError:
                continue

    async def _follow(self, probed: _Probed, first_s: float) -> None:
        """Read the load for ever, for the first time in `first_s`, while the engine can serve."""
        await asyncio.sleep(first_s)
        while True:
            if probed.healthy:
                self._apply_load(probed, await probed.loads.read())
            await asyncio.sleep(probed.load_interval_s)

    def _apply_load(self, probed: _Probed, reading: LoadReading) -> None:
        endpoint = probed.engine.endpoint
        probed.load_problem = reading.problem
        if reading.load is None:
            return
        if probed.told is not None:
            probed.told.note_pages(reading.load)
        self._record_load(endpoint.id, reading.load)
        if reading.load.quant is not None and probed.engine.backend.quant is None:
            self._router.set_quant(endpoint.id, reading.load.quant, self._clock())

    def _record_load(self, endpoint_id: str, load: EngineLoad) -> None:
        self._router.record_load(endpoint_id, load, self._clock())

    def _apply(self, probed: _Probed, reading: Reading) -> None:
        endpoint = probed.engine.endpoint
        probed.looked.set()
        if not reading.ready:
            if probed.note_failure():
                self._set(probed, False, reading.problem or "is not ready")
            return
        probed.failures = 0
        if reading.models is not None and not probed.engine.backend.models:
            self._router.set_models(endpoint.id, reading.models, self._clock())
        if reading.version is not None:
            probed.version = reading.version
        self._set(probed, True, "")

    def _set(self, probed: _Probed, healthy: bool, problem: str) -> None:
        if healthy != probed.healthy:
            name = probed.engine.endpoint.id
            _log.info("engine %s %s", name, "can serve" if healthy else f"cannot serve: {problem}")
            probed.healthy = healthy
            self._router.set_health(name, healthy, self._clock())
        probed.problem = problem
        self._note_readiness()

    def _note_readiness(self) -> None:
        if self.readiness().ready:
            self._became_ready.set()


class _Probed:
    """One engine under observation."""

    def __init__(
        self,
        engine: Engine,
        settings: Health,
        clock: Callable[[], float],
        record: Callable[[EngineLoad], None],
    ) -> None:
        self.engine = engine
        self.interval_s = settings.interval_s
        self.load_interval_s = settings.load_interval_s
        self.loads = LoadReader(
            engine.transport,
            engine.adapter,
            engine.endpoint.url,
            engine.api_key,
            timeout_s=settings.timeout_s,
            clock=clock,
        )
        known_for_s = _PAGES_KNOWN_FOR * settings.load_interval_s
        report = engine.load_report
        self.told = None if report is None else ToldLoad(report, record, known_for_s, clock)
        self.load_problem: str | None = None
        self.version: str | None = None
        self.healthy = False
        self.problem = _STARTING
        self.failures = 0
        self.wake = asyncio.Event()
        self.looked = asyncio.Event()
        self._allowed = settings.failures
        self._timeout_s = settings.timeout_s

    async def look(self) -> Reading:
        """One probe. The version is asked when the engine may be another one than before."""
        return await probe(
            self.engine.transport,
            self.engine.adapter,
            self.engine.endpoint.url,
            self.engine.api_key,
            timeout_s=self._timeout_s,
            ask_version=not self.healthy,
        )

    def note_failure(self) -> bool:
        """Count a bad probe; whether it was one too many."""
        self.failures += 1
        return self.failures >= self._allowed or not self.healthy
