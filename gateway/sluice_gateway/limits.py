"""How much a key may have running: reserve before the work, settle after it.

The interface is the one that token and money limits need: a reservation states its expected cost, its
settlement the real one. What is enforced today is concurrency, counted in this process. A refused request
leaves no trace.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from sluice_gateway.auth import Key
from sluice_gateway.errors import Failure, Problem, problem
from sluice_router.types import Usage


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """What a request is expected to cost."""

    prompt_tokens: int
    """Estimated from the body's size."""
    max_tokens: int | None
    """The client's own bound on the output."""


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """A reservation that has to be settled exactly once."""

    key_id: str


class Limiter(Protocol):
    """Decides whether a key may start one more request. May wait for a store, hence `async`."""

    async def reserve(self, key: Key, demand: Demand) -> Lease | Problem:
        """A lease, or the refusal with its `Retry-After`."""
        ...

    async def settle(self, lease: Lease, usage: Usage | None) -> None:
        """Give the lease back. `usage` is what was really used; `None` when the request used nothing."""
        ...


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
        return Lease(key_id=key.id)

    async def settle(self, lease: Lease, usage: Usage | None) -> None:
        """See `Limiter`."""
        self._all -= 1
        left = self._by_key[lease.key_id] - 1
        if left:
            self._by_key[lease.key_id] = left
        else:
            del self._by_key[lease.key_id]
