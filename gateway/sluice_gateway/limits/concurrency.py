"""How much a key may have running: reserve before the work, settle after it.

The interface is the one that token and money limits need: a reservation states its expected cost, its
settlement the real one. What is enforced today is concurrency, counted in this process. A refused request
leaves no trace.
"""

from __future__ import annotations

import msgspec

from sluice_gateway.errors import Failure, Problem, problem
from sluice_gateway.identity import Key
from sluice_gateway.limits.types import Demand, Lease
from sluice_gateway.wire import Header
from sluice_router.types import Usage


class ConcurrencyLease(msgspec.Struct, frozen=True, kw_only=True):
    """One slot."""

    key_id: str
    headers: tuple[Header, ...] = ()


class ConcurrencyLimiter:
    """Bounds the requests in the gateway: all together, and of each key."""

    def __init__(self, max_concurrent: int, max_concurrent_per_key: int | None) -> None:
        self._max_all = max_concurrent
        self._max_key = max_concurrent_per_key
        self._all = 0
        self._by_key: dict[str, int] = {}

    @property
    def in_use(self) -> int:
        """Leases that are out."""
        return self._all

    async def reserve(self, key: Key, demand: Demand) -> Lease | Problem:
        """See `Limiter`."""
        held = self._by_key.get(key.id, 0)
        if self._max_key is not None and held >= self._max_key:
            return problem(
                Failure.CONCURRENCY_LIMIT,
                f"The key '{key.id}' already has {held} requests running, its limit; wait for one to end.",
            )
        if self._all >= self._max_all:
            return problem(
                Failure.CONCURRENCY_LIMIT,
                f"The gateway already has {self._all} requests running, its limit; try again shortly.",
            )
        self._all += 1
        self._by_key[key.id] = held + 1
        return ConcurrencyLease(key_id=key.id)

    def settle(self, lease: Lease, usage: Usage | None) -> None:
        """See `Limiter`."""
        assert isinstance(lease, ConcurrencyLease)
        self._all -= 1
        left = self._by_key[lease.key_id] - 1
        if left:
            self._by_key[lease.key_id] = left
        else:
            del self._by_key[lease.key_id]

    async def start(self) -> None:
        """See `Limiter`."""

    async def aclose(self) -> None:
        """See `Limiter`."""
