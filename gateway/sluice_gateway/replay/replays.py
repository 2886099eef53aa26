"""Where the pipeline asks whether a request's answer is there already, or is being made.

The pipeline calls `applies`, one dict look-up, for every request, and `serve` instead of its own way for
those that it applies to: after authentication and after the body was read, before anything is reserved. What
is answered from here costs neither limits nor money.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from sluice_gateway.arrival import Arrival
from sluice_gateway.errors import Problem
from sluice_gateway.identity import Key
from sluice_gateway.replay.cache import AnswerCache
from sluice_gateway.replay.claims import Claims
from sluice_gateway.replay.delivery import Delivery
from sluice_gateway.replay.digest import sha256
from sluice_gateway.replay.idempotency import HEADER, Idempotency, Produce
from sluice_gateway.replay.settings import CacheSettings, IdempotencySettings
from sluice_gateway.replay.shelf import Shelf

How = Literal["made", "miss", "hit", "replayed", "attached"]
"""Where an answer came from:

made      produced for this request, which has an idempotency key or is not for the cache
miss      produced for this request, and kept in the cache if it may be
hit       the cache had it
replayed  made for an earlier request with the idempotency key
attached  being made for an earlier request with the idempotency key
"""


class Replays:
    """Idempotency keys and cache of one process."""

    def __init__(
        self,
        idempotency: IdempotencySettings,
        cache: CacheSettings,
        *,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        claims: Claims | None = None,
    ) -> None:
        """`clock` is monotonic; `claims` shares idempotency keys with other processes."""
        kept = Shelf(idempotency.max_bytes, idempotency.ttl_s, clock)
        self._idempotency = Idempotency(kept, wall_clock, claims)
        self._cache: AnswerCache | None = None
        if cache.enabled:
            self._cache = AnswerCache(Shelf(cache.max_bytes, cache.ttl_s, clock), wall_clock)

    def applies(self, headers: dict[bytes, bytes]) -> bool:
        """Whether a request has to go through `serve`."""
        return HEADER in headers or self._cache is not None

    async def serve(
        self, arrival: Arrival, key: Key, body: bytes, delivery: Delivery, produce: Produce
    ) -> How | Problem:
        """Deliver a request's answer: one that is kept or being made, or else one that `produce` makes.

        The caller has authenticated (`key`) and read (`body`), but not watched `arrival.source`: that is done
        here, with the delivery's interruption, or by `produce`. `delivery` is `Delivery(arrival.wire, ...)`
        with the calling task's interruption.

        `produce` gets an arrival of its own, with key, body, a wire, and a source to watch. It answers that
        and returns its exchange, which it has recorded; it must not come back here. For "miss", and for
        "made" without an idempotency key, it runs in the calling task, on the client's own wire. With a key
        it runs in a task of its own, which outlives the caller as long as another client reads; when the last
        one has left, it is interrupted with `CLIENT_GONE` through its source.

        Returns where the answer came from. For "made" and "miss" the request is recorded already; for the
        others, and for a `Problem`, which has not been written, that is the caller's. An answer that was cut
        leaves `delivery.finished` false. With an idempotency key, a caller that is interrupted finds in
        `delivery` what its client has seen; while nothing has been made for it, this raises `CancelledError`
        like any wait.

        A request with an idempotency key neither looks into the cache nor fills it.
        """
        if HEADER in arrival.headers:
            digest = await sha256(body)
            return await self._idempotency.serve(arrival, key, body, digest, delivery, produce)
        assert self._cache is not None
        return await self._cache.serve(arrival, key, body, delivery, produce)

    async def aclose(self) -> None:
        """After the last request."""
        await self._idempotency.aclose()
