"""What a router is made with, as one value: so that a configuration, or a log, can make the same again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from sluice_router.admission_policy import AdmissionPolicy
from sluice_router.failure import Failover
from sluice_router.hedging import SHARE
from sluice_router.prefixes import BLOCKS
from sluice_router.router import Router
from sluice_router.types import Endpoint


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What a router is made with beside its endpoints; see `Router`."""

    max_queue: int
    queue_timeout_s: float
    failover: Failover = Failover()
    admission: AdmissionPolicy = AdmissionPolicy()
    load_ttl_s: float = 10.0
    recovery_s: float = 5.0
    prefix_blocks: int = BLOCKS
    hedge_share: float = SHARE

    def router(self, endpoints: Sequence[Endpoint], random: Callable[[], float]) -> Router:
        """A router of these. Raises `ValueError` as `Router` does."""
        named = {field: getattr(self, field) for field in self.__struct_fields__}
        return Router(endpoints, random=random, **named)
