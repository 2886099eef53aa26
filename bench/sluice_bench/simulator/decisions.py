"""What the router of a simulated gateway decides, written down as a gateway's decision log."""

from __future__ import annotations

import random
from collections.abc import Callable

from sluice_bench.simulator.fleet import SLUICE, FleetSettings, Make, engine_endpoints, router_options
from sluice_router.recorded_router import RecordedRouter


def recorded(write: Callable[[bytes], None]) -> Make:
    """Makes routers that are recorded; `write` gets each line, at once and in order. A log is one router's:
    it makes one, for one gateway, and raises `ValueError` for more, or for another policy."""
    made: list[RecordedRouter] = []

    def make(settings: FleetSettings, source: random.Random) -> RecordedRouter:
        if settings.policy != SLUICE or made:
            raise ValueError(f"a decision log is of one gateway and the policy {SLUICE!r}")
        options = router_options(settings)
        made.append(RecordedRouter(engine_endpoints(settings), write, random=source.random, options=options))
        return made[0]

    return make
