"""The engines of one configuration, with what watches them and what chooses among them.

A fleet never changes. Another configuration is another fleet, which takes over what the one before knew of
the engines that both have, so that an engine that could serve goes on being asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from sluice_gateway.admission import Admission
from sluice_gateway.children import Children, Held
from sluice_gateway.engines import Transports, build_engines
from sluice_gateway.health import HealthMonitor
from sluice_gateway.managed_ports import ManagedPorts
from sluice_gateway.models import Catalog
from sluice_gateway.routing_settings import choices
from sluice_gateway.settings import Settings
from sluice_router.router_options import Options
from sluice_router.routing import Routing

if TYPE_CHECKING:
    from sluice_gateway.decision_file import DecisionFile

_PARTS = ("backends", "queue", "admission", "failover", "aliases", "health", "decision_log")
"""Sections of the configuration that make a fleet what it is."""


class Fleet:
    """`start` before the first request, `aclose` after the last."""

    def __init__(
        self,
        settings: Settings,
        environment: Mapping[str, str],
        transports: Transports,
        children: Children,
        clock: Callable[[], float],
        started_at: int,
    ) -> None:
        """`started_at`: see `Catalog`. Starts nothing. Raises `ConfigError`, and then holds no child."""
        self._children = children
        self._held: Held = children.hold(settings.backends)
        self._settings = settings
        self._health_timeout_s = settings.health.timeout_s
        # Whoever is managed has its address by now.
        self.engines = build_engines(self._held.backends, environment, transports, ManagedPorts())
        self._decisions: DecisionFile | None = None
        self.router = self._router(settings)
        self.health = HealthMonitor(self.engines, self.router, settings.health, clock)
        self.catalog = Catalog(self.router, started_at, choices(settings.aliases))
        self.admission = Admission(self.router, clock)

    def _router(self, settings: Settings) -> Routing:
        endpoints = [engine.endpoint for engine in self.engines]
        options = Options(
            max_queue=settings.queue.max_waiting,
            queue_timeout_s=settings.queue.timeout_s,
            failover=settings.failover.policy(),
            admission=settings.admission.policy(settings.queue.max_tokens, settings.queue.max_bytes),
            hedge_share=settings.failover.hedge_share,
        )
        if settings.decision_log is None:
            return options.router(endpoints, random.random)
        # Hardly anybody records; nobody else loads what that takes.
        from sluice_gateway.decision_file import DecisionFile
        from sluice_router.recorded_router import RecordedRouter

        self._decisions = DecisionFile(settings.decision_log)
        return RecordedRouter(endpoints, self._decisions.write, random=random.random, options=options)

    def serves(self, settings: Settings) -> bool:
        """Whether another configuration would make the same fleet."""
        return all(getattr(settings, part) == getattr(self._settings, part) for part in _PARTS)

    async def start(self, before: Fleet | None = None) -> None:
        """Start managed engines and probes. Does not wait for engines to be ready.

        Taking over from a fleet, it waits until every engine has been looked at, for as long as a probe may
        take: the first request should find the engines that are there.
        """
        self._children.start(self._held)
        if before is not None:
            self.health.adopt(before.health)
        await self.health.start()
        if before is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._health_timeout_s):
                    await self.health.wait_until_looked()

    async def stop_probing(self) -> None:
        """No request will come any more; those that are here may end."""
        await self.health.aclose()

    async def aclose(self) -> None:
        """After the last request. Managed engines that no other fleet has are stopped."""
        self.admission.close()
        await self.health.aclose()
        if self._decisions is not None:
            self._decisions.close()
        await self._children.release(self._held)
