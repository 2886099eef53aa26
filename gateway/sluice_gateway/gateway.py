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
from sluice_gateway.admission import Admission
from sluice_gateway.children import Children
from sluice_gateway.dialects.opened import Dialects
from sluice_gateway.engines import Transports, build_engines
from sluice_gateway.health import HealthMonitor, Readiness
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
from sluice_gateway.managed_ports import ManagedPorts
from sluice_gateway.metrics import Metrics
from sluice_gateway.models import Catalog
from sluice_gateway.pipeline import Pipeline, Recorder, Stages
from sluice_gateway.responses_api.serving import Opener
from sluice_gateway.routing_settings import choices
from sluice_gateway.services import Services
from sluice_gateway.settings import Settings
from sluice_gateway.store.database import Database, StoreError
from sluice_gateway.tracing.settings import Tracing
from sluice_gateway.tracing.types import TraceMaker
from sluice_router.router import Router

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
        self._transports = Transports()
        self._ports = ManagedPorts()
        self.engines = build_engines(settings.backends, environment, self._transports, self._ports)
        self.router = Router(
            [engine.endpoint for engine in self.engines],
            max_queue=settings.queue.max_waiting,
            queue_timeout_s=settings.queue.timeout_s,
            failover=settings.failover.policy(),
            random=random.random,
        )
        self.database = _database(settings.store.url)
        feed = None if settings.redis is None else RedisFeed(settings.redis, environment)
        self.identities = Identities(settings, self.database, feed=feed, wall_clock=wall_clock)
        self.keyring = self.identities.keyring
        self.metrics = Metrics()
        self.metrics.observe_router(self.router.snapshot)
        self._tracer = _tracer(settings.tracing)
        self._request_log = RequestLog(log_stream, settings.logs.format, wall_clock)
        self.health = HealthMonitor(self.engines, self.router, settings.health, clock)
        self.catalog = Catalog(self.router, int(wall_clock()), choices(settings.aliases))
        self._admission = Admission(self.router, clock)
        self._children = Children(self.engines, self.health)
        self._lag_task: asyncio.Task[None] | None = None
        self._draining = False
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
        self.pipeline = self._pipeline()
        self.metrics.observe_in_flight(lambda: self.pipeline.in_flight)

    def _build_limiter(
        self, environment: Mapping[str, str], wall_clock: Callable[[], float]
    ) -> MemoryLimiter | RedisLimiter:
        settings, clock = self.settings, steady_clock(self.clock, wall_clock)
        try:
            return build_limiter(settings.limits, settings.redis, environment, clock, random.random)
        except ValueError as error:
            raise config.ConfigError(str(error)) from error

    def _pipeline(self) -> Pipeline:
        settings = self.settings
        recorders: list[Recorder] = [self.metrics.record]
        if self.services.ledger is not None:
            recorders.append(self.services.ledger.record)
            self.metrics.registry.register(LedgerCollector(self.services.ledger.snapshot))
        if settings.logs.requests:
            recorders.append(self._request_log.write)
        stages = Stages(
            keyring=self.keyring,
            limiter=self.limiter,
            admission=self._admission,
            catalog=self.catalog,
            engines={engine.endpoint.id: engine for engine in self.engines},
            dialects=Dialects(Opener(self.services.responses)),
            background=self.services.background,
            replays=self.services.replays,
            health=self.health,
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
        self._children.start()
        await self.health.start()
        await self.services.start()
        self._lag_task = asyncio.create_task(sample_loop_lag(self.metrics.loop_lag.observe))

    async def _remember_spending(self) -> None:
        """Budgets begin with what the ledger knows; a store that does not answer costs only that."""
        if self.services.ledger is None or not self.settings.prices.models:
            return
        try:
            async with asyncio.timeout(_SPENDING_S):
                self.limiter.restore(await known_spending(self.database, self.wall_clock()))
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            _log.warning("budgets begin at nothing: the ledger cannot be read (%s)", type(error).__name__)

    def readiness(self) -> Readiness:
        """Whether a load balancer should send requests here."""
        if self._draining:
            return Readiness(ready=False, reason="The gateway is shutting down.")
        return self.health.readiness()

    async def drain(self, limit_s: float) -> None:
        """Not ready from here on; let running requests end, and end what is left after `limit_s` with an
        error."""
        self._draining = True
        self.pipeline.drain()
        await self.services.drain()
        await self.pipeline.wait_until_idle(limit_s)
        self.pipeline.interrupt_all()
        await self.pipeline.wait_until_idle(_LAST_WORDS_S)

    async def aclose(self) -> None:
        """Stop everything that was started. Idempotent."""
        if self._lag_task is not None:
            self._lag_task.cancel()
        await self.services.aclose()
        self._admission.close()
        await self.limiter.aclose()
        await self.health.aclose()
        await self._children.aclose()
        self._ports.close()
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
