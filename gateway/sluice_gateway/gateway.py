"""The gateway as one object, put together from its settings, with a start and an end.

Everything that has a life is owned here: upstream connections, probes, managed engines, the loop-lag
sampler. Nothing is global; two gateways in one process do not know of each other.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import TextIO

from sluice_gateway import config
from sluice_gateway.admission import Admission
from sluice_gateway.children import Children
from sluice_gateway.engines import Transports, build_engines
from sluice_gateway.health import HealthMonitor, Readiness
from sluice_gateway.limits.concurrency import ConcurrencyLimiter
from sluice_gateway.logs import RequestLog
from sluice_gateway.loop_lag import sample_loop_lag
from sluice_gateway.managed_ports import ManagedPorts
from sluice_gateway.metrics import Metrics
from sluice_gateway.models import Catalog
from sluice_gateway.pipeline import Pipeline, Recorder, Stages
from sluice_gateway.settings import Settings
from sluice_router.router import Router

_LAST_WORDS_S = 1.0


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
        self._transports = Transports()
        self._ports = ManagedPorts()
        self.engines = build_engines(settings.backends, environment, self._transports, self._ports)
        self.router = Router(
            [engine.endpoint for engine in self.engines],
            max_queue=settings.queue.max_waiting,
            queue_timeout_s=settings.queue.timeout_s,
            max_attempts=settings.queue.max_attempts,
        )
        self.keyring = config.keyring(settings)
        self.metrics = Metrics()
        self.metrics.observe_router(self.router.snapshot)
        self._request_log = RequestLog(log_stream, settings.logs.format, wall_clock)
        self.health = HealthMonitor(self.engines, self.router, settings.health, clock)
        self.catalog = Catalog(self.router, int(wall_clock()))
        self._admission = Admission(self.router, clock)
        self._children = Children(self.engines, self.health)
        self._lag_task: asyncio.Task[None] | None = None
        self._draining = False
        self.pipeline = self._pipeline()
        self.metrics.observe_in_flight(lambda: self.pipeline.in_flight)

    def _pipeline(self) -> Pipeline:
        settings = self.settings
        recorders: list[Recorder] = [self.metrics.record]
        if settings.logs.requests:
            recorders.append(self._request_log.write)
        stages = Stages(
            keyring=self.keyring,
            limiter=ConcurrencyLimiter(
                settings.limits.max_concurrent, settings.limits.max_concurrent_per_key
            ),
            admission=self._admission,
            catalog=self.catalog,
            engines={engine.endpoint.id: engine for engine in self.engines},
            health=self.health,
            metrics=self.metrics,
            prices={},
            recorders=recorders,
        )
        return Pipeline(stages, settings.server, settings.timeouts, self.clock)

    async def start(self) -> None:
        """Start managed engines and probes. Does not wait for engines to be ready."""
        self._children.start()
        await self.health.start()
        self._lag_task = asyncio.create_task(sample_loop_lag(self.metrics.loop_lag.observe))

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
        await self.pipeline.wait_until_idle(limit_s)
        self.pipeline.interrupt_all()
        await self.pipeline.wait_until_idle(_LAST_WORDS_S)

    async def aclose(self) -> None:
        """Stop everything that was started. Idempotent."""
        if self._lag_task is not None:
            self._lag_task.cancel()
        self._admission.close()
        await self.health.aclose()
        await self._children.aclose()
        self._ports.close()
        await self._transports.aclose()
        self._request_log.flush()
