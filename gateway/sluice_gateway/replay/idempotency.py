"""Idempotency keys: a request that is sent again is not done again.

A client names a request with the header `Idempotency-Key`. The same name from the same API key on the same
path, with the same body, gets the same answer: the one being made, from its first byte, or the one made
before. With another body it is refused: the client has mixed something up.

    nobody has it          this request makes it
    it is being made here  this request joins (and the maker goes on when its own client leaves)
    another process makes it   409 with Retry-After, which SDKs follow until the answer is there
    it is kept             replayed, with `idempotent-replayed: true`

Invariant: at most one making of a name at a time in this process, and, while Redis is there, in all of them.
Answers worth a second try are not kept: 5xx, 408, 409, 429, and whatever was cut. When the last client has
left, the making is interrupted. Source: draft-ietf-httpapi-idempotency-key-header.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Literal

import msgspec

from sluice_gateway.arrival import Arrival
from sluice_gateway.errors import Failure, Problem, internal, problem
from sluice_gateway.exchange import Exchange
from sluice_gateway.identity import Key
from sluice_gateway.interruption import Interruption
from sluice_gateway.replay.answer import Answer, lasting
from sluice_gateway.replay.claims import Busy, Claim, Claims, Finished
from sluice_gateway.replay.delivery import Delivery
from sluice_gateway.replay.shared_answer import SharedAnswer
from sluice_gateway.replay.shelf import Shelf
from sluice_gateway.wire import Header

HEADER = b"idempotency-key"
MAX_KEY = 255

Produce = Callable[[Arrival], Awaitable[Exchange]]
"""Answers a request, on the wire of the arrival it is given; says how it went."""
How = Literal["made", "attached", "replayed"]

_log = logging.getLogger("sluice")
_BUSY_RETRY_S = 1.0
_REPLAYED: Header = (b"idempotent-replayed", b"true")
_WORTH_A_RETRY = frozenset({408, 409, 429})


class _Making:
    """An answer that is being made. `Source` of the request that makes it: no client who could leave it."""

    __slots__ = (
        "_interruption",
        "answer",
        "body",
        "claim",
        "digest",
        "ended",
        "from_elsewhere",
        "refusal",
        "request_id",
        "shared",
        "task",
    )

    def __init__(self, request_id: str, body: bytes, digest: bytes, max_bytes: int) -> None:
        self.request_id = request_id
        self.body = body
        self.digest = digest
        self.shared = SharedAnswer(max_bytes, self._on_deserted)
        self.task: asyncio.Task[None] | None = None
        self.ended = asyncio.Event()
        self.claim: Claim | None = None
        self.answer: Answer | None = None
        """To be kept."""
        self.refusal: Problem | None = None
        """Why nothing was made here."""
        self.from_elsewhere = False
        """Another process had made it."""
        self._interruption: Interruption | None = None

    async def read(self, limit: int, timeout_s: float) -> bytes | Problem:
        """See `Source`."""
        return self.body

    def watch(self, interruption: Interruption) -> None:
        """See `Source`."""
        self._interruption = interruption
        if self.shared.deserted:
            interruption.interrupt(Failure.CLIENT_GONE)

    def unwatch(self) -> None:
        """See `Source`."""
        self._interruption = None

    def _on_deserted(self) -> None:
        if self._interruption is not None:
            self._interruption.interrupt(Failure.CLIENT_GONE)
        elif self.task is not None:
            self.task.cancel()


class Idempotency:
    """The names of one process."""

    def __init__(self, shelf: Shelf, wall_clock: Callable[[], float], claims: Claims | None = None) -> None:
        """`claims` shares names with other processes; `wall_clock` gives seconds since 1970."""
        self._shelf = shelf
        self._wall_clock = wall_clock
        self._claims = claims
        self._making: dict[bytes, _Making] = {}
        self._settling: dict[bytes, asyncio.Task[None]] = {}

    @property
    def in_progress(self) -> int:
        """Answers being made."""
        return len(self._making)

    async def serve(
        self, arrival: Arrival, key: Key, body: bytes, digest: bytes, delivery: Delivery, produce: Produce
    ) -> How | Problem:
        """Deliver the answer to a request with the header; see `Replays.serve`."""
        name = name_of(arrival, key)
        if isinstance(name, Problem):
            return name
        arrival.source.watch(delivery.interruption)
        if delivery.interruption.cause is not None:
            await asyncio.sleep(0)  # ends here: nothing is begun for a client that has left
        while True:
            kept = self._shelf.get(name)
            if kept is not None:
                return await self._replay(kept.digest, kept.answer, digest, arrival, delivery)
            making = self._making.get(name)
            if making is None:
                making = self._begin(name, arrival, key, body, digest, produce)
                return await self._follow(making, arrival, delivery, "made")
            if making.digest != digest:
                return _reused()
            if not making.shared.is_live:
                await making.ended.wait()  # a moment, until it is known whether it is kept
            elif making.shared.overflowed:
                return _busy("is being answered, and the answer is too large to be shared")
            else:
                return await self._follow(making, arrival, delivery, "attached")

    async def aclose(self) -> None:
        """End what is still being made, and wait until the other processes have been told."""
        for making in list(self._making.values()):
            if making.shared.is_live and making.task is not None:
                making.task.cancel()
            await making.ended.wait()
        await asyncio.gather(*self._settling.values(), return_exceptions=True)
        if self._claims is not None:
            await self._claims.aclose()

    def _begin(
        self, name: bytes, arrival: Arrival, key: Key, body: bytes, digest: bytes, produce: Produce
    ) -> _Making:
        making = _Making(arrival.envelope.request_id, body, digest, self._shelf.largest_bytes)
        inner = Arrival(
            route=arrival.route,
            headers=arrival.headers,
            server=arrival.server,
            source=making,
            wire=making.shared,
            envelope=arrival.envelope,
            key=key,
            priority=arrival.priority,
        )
        self._making[name] = making
        making.task = asyncio.create_task(self._make(name, making, inner, produce))
        making.task.add_done_callback(lambda task: self._conclude(name, making, task))
        return making

    async def _make(self, name: bytes, making: _Making, inner: Arrival, produce: Produce) -> None:
        if self._claims is not None:
            if name in self._settling:
                await asyncio.wait({self._settling[name]})
            found = await self._claims.take(name, making.digest)
            if isinstance(found, Busy | Finished):
                _take_from_elsewhere(making, found)
                return
            making.claim = found
        exchange = await produce(inner)
        # A failure that a second try would meet again is as good as an answer.
        if exchange.failure is None or making.shared.status >= 400:
            making.answer = self._worth_keeping(making.shared)

    def _worth_keeping(self, shared: SharedAnswer) -> Answer | None:
        if shared.status >= 500 or shared.status in _WORTH_A_RETRY:
            return None
        return shared.answer(self._wall_clock())

    def _conclude(self, name: bytes, making: _Making, task: asyncio.Task[None]) -> None:
        """After the making, also when it was cancelled before it began."""
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a request with an idempotency key failed inside the gateway", exc_info=error)
            making.refusal = internal(making.request_id)
        answer = making.answer
        if answer is not None and not self._shelf.put(name, making.digest, answer):
            answer = None
        del self._making[name]
        making.shared.end()
        making.ended.set()
        if making.claim is not None:
            # Not waited for: the clients have their answer.
            settling = asyncio.create_task(making.claim.settle(making.digest, answer))
            self._settling[name] = settling
            settling.add_done_callback(lambda _: self._settling.pop(name))

    async def _follow(self, making: _Making, arrival: Arrival, delivery: Delivery, how: How) -> How | Problem:
        def dress(headers: list[Header]) -> list[Header]:
            if how == "made" and not making.from_elsewhere:
                return headers
            return [*lasting(headers), *arrival.envelope.headers(), _REPLAYED]

        await making.shared.follow(delivery, dress)
        if not delivery.status:
            return making.refusal or problem(
                Failure.SHUTTING_DOWN, "The gateway is shutting down; try again."
            )
        return "replayed" if making.from_elsewhere else how

    async def _replay(
        self, kept_digest: bytes, answer: Answer, digest: bytes, arrival: Arrival, delivery: Delivery
    ) -> How | Problem:
        if kept_digest != digest:
            return _reused()
        await answer.replay(delivery, [*arrival.envelope.headers(), _REPLAYED])
        return "replayed"


def _take_from_elsewhere(making: _Making, found: Busy | Finished) -> None:
    if found.digest != making.digest:
        making.refusal = _reused()
    elif isinstance(found, Busy):
        making.refusal = _busy("is being answered by another process")
    else:
        making.from_elsewhere, making.answer = True, found.answer
        making.shared.give(found.answer)


def name_of(arrival: Arrival, key: Key) -> bytes | Problem:
    """What tells a client's named requests apart: API key, path, and the client's name for it."""
    given = arrival.headers[HEADER]
    if not 1 <= len(given) <= MAX_KEY or not given.isascii():
        text = f"Idempotency-Key must have 1 to {MAX_KEY} ASCII characters; a random UUID is a good one."
        return problem(Failure.INVALID_REQUEST, text)
    return msgspec.msgpack.encode((key.tenant, key.id, arrival.route.path, given))


def _reused() -> Problem:
    return problem(
        Failure.IDEMPOTENCY_KEY_REUSED,
        "This Idempotency-Key was used for a request with another body; use a new one for each new request.",
    )


def _busy(why: str) -> Problem:
    text = f"The request with this Idempotency-Key {why}; try again shortly."
    return problem(Failure.IDEMPOTENCY_IN_PROGRESS, text, retry_after_s=_BUSY_RETRY_S)
