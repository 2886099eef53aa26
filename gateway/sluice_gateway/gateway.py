"""The gateway as one object, put together from its settings, with a start and an end.

Everything that has a life is owned here: upstream connections, probes, managed engines, the loop-lag
sampler. Nothing is global; two gateways in one process do not know of each other.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping
from typing import TextIO

from sqlalchemy.exc import SQLAlchemyError

from sluice_gateway import config
from sluice_gateway.children import Children
from sluice_gateway.cors import CorsPolicy
from sluice_gateway.dialects.opened import Dialects
from sluice_gateway.engines import Transports
from sluice_gateway.fleet import Fleet
from sluice_gateway.generations import Generation, Generations
from sluice_gateway.health import Readiness
from sluice_gateway.keys.feed import RedisFeed
from sluice_gateway.keys.identities import Identities
from sluice_gateway.ledger.collector import LedgerCollector
from sluice_gateway.limits.build import build_limiter, steady_clock
from sluice_gateway.limits.collector import LimiterCollector
from sluice_gateway.limits.known_spending import known_spending
from sluice_gateway.limits.memory import MemoryLimiter
from sluice_gateway.limits.redis import RedisLimiter
from sluice_gateway.logs import RequestLog
from sluice_gateway.loop_lag import sample_loop_lag
from sluice_gateway.loop_watchdog import LoopWatchdog
from sluice_gateway.metrics import Metrics
from sluice_gateway.overseer import Alone, Overseer
from sluice_gateway.pipeline import Pipeline, Recorder, Stages
from sluice_gateway.reload import refuse_fixed
from sluice_gateway.responses_api.serving import Opener
from sluice_gateway.resumption.resumptions import Resumptions
from sluice_gateway.services import Services
from sluice_gateway.settings import Settings
from sluice_gateway.store.database import Database, StoreError
from sluice_gateway.tracing.settings import Tracing
from sluice_gateway.tracing.types import TraceMaker
from sluice_router.snapshot import RouterSnapshot

_log = logging.getLogger("sluice")

_LAST_WORDS_S = 1.0
_SPENDING_S = 5.0


class Gateway:
    """Owns the parts. `start` before the first request, `aclose` after the last."""

    def __init__(
        self,
        settings: Settings,
        environment: Mapping[str, str],
        log_stream: TextIO,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """Build, without starting anything. Raises `ConfigError` when the settings do not fit together."""
        self.settings = settings
        self.clock = clock
        self.wall_clock = wall_clock
        self._environment = environment
        self._transports = Transports()
        self._children = Children(self.report_engine)
        self._started_at = int(wall_clock())
        fleet = self._fleet(settings)
        self.database = _database(settings.store.url)
        feed = None if settings.redis is None else RedisFeed(settings.redis, environment)
        self.identities = Identities(settings, self.database, feed=feed, wall_clock=wall_clock)
        self.keyring = self.identities.keyring
        self.metrics = Metrics()
        self.metrics.observe_router(self._router_snapshot)
        self._tracer = _tracer(settings.tracing)
        self._request_log = RequestLog(log_stream, settings.logs.format, wall_clock)
        self.overseer: Overseer = Alone(self)
        """Who speaks for the whole gateway; another one where there are several processes."""
        self._watchdog = LoopWatchdog(clock)
        self._lag_task: asyncio.Task[None] | None = None
        self._draining = False
        self._hear_retired: Callable[[int], None] = lambda _: None
        self.limiter = self._build_limiter(environment, wall_clock)
        self.metrics.registry.register(LimiterCollector(self.limiter.counters))
        self.services = Services(
            settings,
            environment,
            self.database,
            self.keyring,
            lambda arrival: self.pipeline.serve(arrival),
            clock=clock,
            wall_clock=wall_clock,
        )
        if self.services.ledger is not None:
            self.metrics.registry.register(LedgerCollector(self.services.ledger.snapshot))
        self._generations = Generations(Generation(1, fleet, self._pipeline(settings, fleet)), self._retired)
        self._reloading = asyncio.Lock()
        self.metrics.observe_in_flight(lambda: self._generations.in_flight)
        self._adopt(settings, self._generations.current)

    def _fleet(self, settings: Settings) -> Fleet:
        return Fleet(
            settings, self._environment, self._transports, self._children, self.clock, self._started_at
        )

    def _adopt(self, settings: Settings, generation: Generation) -> None:
        """What the rest of the gateway sees of a generation. Without an await in it: all of it at once."""
        fleet = generation.fleet
        self.settings = settings
        self.engines, self.router, self.health = fleet.engines, fleet.router, fleet.health
        self.catalog, self.pipeline = fleet.catalog, generation.pipeline
        self.cors = CorsPolicy(settings.cors.allow_origins)

    def _router_snapshot(self) -> RouterSnapshot:
        return self.router.snapshot()

    def _build_limiter(
        self, environment: Mapping[str, str], wall_clock: Callable[[], float]
    ) -> MemoryLimiter | RedisLimiter:
        settings, clock = self.settings, steady_clock(self.clock, wall_clock)
        try:
            return build_limiter(settings.limits, settings.redis, environment, clock, random.random)
        except ValueError as error:
            raise config.ConfigError(str(error)) from error

    def _pipeline(self, settings: Settings, fleet: Fleet) -> Pipeline:
        recorders: list[Recorder] = [self.metrics.record]
        if self.services.ledger is not None:
            recorders.append(self.services.ledger.record)
        if settings.logs.requests:
            recorders.append(self._request_log.write)
        stages = Stages(
            keyring=self.keyring,
            limiter=self.limiter,
            admission=fleet.admission,
            catalog=fleet.catalog,
            engines={engine.endpoint.id: engine for engine in fleet.engines},
            dialects=Dialects(Opener(self.services.responses)),
            background=self.services.background,
            replays=self.services.replays,
            resumptions=Resumptions(
                settings.failover.resume_streams and len(fleet.engines) > 1,
                settings.timeouts.total_s,
                self.clock,
                self.metrics.count_resumption,
            ),
            health=fleet.health,
            metrics=self.metrics,
            prices=settings.prices.table(),
            recorders=recorders,
            tracer=self._tracer,
        )
        return Pipeline(stages, settings.server, settings.timeouts, self.clock)

    async def start(self) -> None:
        """Start managed engines and probes. Does not wait for engines to be ready."""
        await self.identities.start()
        await self._remember_spending()
        await self.limiter.start()
        await self._generations.current.fleet.start()
        await self.services.start()
        self._watchdog.start()
        self._lag_task = asyncio.create_task(sample_loop_lag(self._note_lag))

    async def _remember_spending(self) -> None:
        """Budgets begin with what the ledger knows; a store that does not answer costs only that."""
        if self.services.ledger is None or not self.settings.prices.models:
            return
        try:
            async with asyncio.timeout(_SPENDING_S):
                self.limiter.restore(await known_spending(self.database, self.wall_clock()))
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            _log.warning("budgets begin at nothing: the ledger cannot be read (%s)", type(error).__name__)

    def _note_lag(self, lag_s: float) -> None:
        self.metrics.loop_lag.observe(lag_s)
        self._watchdog.beat()

    def readiness(self) -> Readiness:
        """Whether a load balancer should send requests here."""
        if self._draining:
            return Readiness(ready=False, reason="The gateway is shutting down.")
        return self.health.readiness()

    async def reload(self, settings: Settings) -> int:
        """Put another configuration in force: new requests are served by it, running ones end as they began.

        Returns the number of this generation. Raises `ConfigError`, and has changed nothing, when the
        settings do not fit together or need a restart.
        """
        async with self._reloading:
            refuse_fixed(self.settings, settings)
            present = self._generations.current
            fleet = present.fleet if present.fleet.serves(settings) else self._fleet(settings)
            if fleet is not present.fleet:
                await self._start_beside(fleet, present.fleet)
            new = Generation(present.number + 1, fleet, self._pipeline(settings, fleet))
            self.limiter.reload(settings.limits)
            self._adopt(settings, new)
            await self._generations.replace(new)
            await self.identities.reload(settings)
        _log.info("configuration %d is in force", new.number)
        return new.number

    async def _start_beside(self, fleet: Fleet, present: Fleet) -> None:
        try:
            await fleet.start(present)
        except BaseException:
            await fleet.aclose()
            raise

    def report_engine(self, name: str, problem: str | None) -> None:
        """A managed engine cannot serve, or may be able to from now on (`None`)."""
        self._generations.report(name, problem)

    def on_retired(self, hear: Callable[[int], None]) -> None:
        """Have the number of every generation told whose last request has ended."""
        self._hear_retired = hear

    def _retired(self, generation: Generation) -> None:
        _log.info("the last request of configuration %d has ended", generation.number)
        self._hear_retired(generation.number)

    def interrupt_all(self) -> None:
        """End every request on its way with an error."""
        self._generations.interrupt_all()

    async def drain(self, limit_s: float) -> None:
        """Not ready from here on; let running requests end, and end what is left after `limit_s` with an
        error."""
        self._draining = True
        self._generations.drain()
        await self.services.drain()
        await self._generations.wait_until_idle(limit_s)
        self.interrupt_all()
        await self._generations.wait_until_idle(_LAST_WORDS_S)

    async def aclose(self) -> None:
        """Stop everything that was started. Idempotent."""
        self._watchdog.stop()
        if self._lag_task is not None:
            self._lag_task.cancel()
        await self.services.aclose()
        await self.limiter.aclose()
        await self._generations.aclose()
        await self._children.aclose()
        await self._transports.aclose()
        await self.identities.aclose()
        await self.database.aclose()
        self._request_log.flush()
        if self._tracer is not None:
            await asyncio.to_thread(self._tracer.close)


def _database(url: str) -> Database:
    try:
        return Database(url)
    except StoreError as error:
        raise config.ConfigError(str(error)) from error


def _tracer(settings: Tracing) -> TraceMaker | None:
    """The SDK takes memory and a moment to import: only who traces pays."""
    if settings.otlp_endpoint is None:
        return None
    from sluice_gateway.tracing.tracer import Tracer

    return Tracer(settings)
