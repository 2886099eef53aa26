"""Exact response cache: a request that is byte for byte one that was answered gets that answer.

The key is SHA-256 over everything an answer may depend on: kind and path, the body as sent, the tenant, what
the API key may use, and the headers that choose an engine or a dialect's version. A sampled answer is kept
too: whoever switches the cache on wants the same answer to the same question. Only an answer with status 200
that ended as it should is kept, never one that was cut, and streams are given again as they were recorded.

`Cache-Control` of a request: `no-store` neither looks nor keeps; `no-cache` does not look, but keeps;
`max-age=N` takes nothing older than N seconds. Source: RFC 9111, section 5.2.1.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal

import msgspec

from sluice_gateway.arrival import Arrival, Source
from sluice_gateway.errors import Problem
from sluice_gateway.identity import Key
from sluice_gateway.interruption import Interruption
from sluice_gateway.replay.answer import Answer, lasting
from sluice_gateway.replay.delivery import Delivery
from sluice_gateway.replay.digest import sha256
from sluice_gateway.replay.idempotency import Produce
from sluice_gateway.replay.shelf import Shelf
from sluice_gateway.routes import Kind
from sluice_gateway.wire import Header, Wire

HEADER = b"x-sluice-cache"
HIT: Header = (HEADER, b"hit")
MISS: Header = (HEADER, b"miss")

KINDS: frozenset[Kind] = frozenset(
    {
        "chat",
        "completions",
        "embeddings",
        "messages",
        "count_tokens",
        "tokenize",
        "detokenize",
        "rerank",
        "score",
    }
)
"""What is cached. Stored responses have ids of their own, and uploads are too large to be looked at twice."""

_DECISIVE = (
    b"x-backend",
    b"x-quant",
    b"x-route",
    b"anthropic-version",
    b"anthropic-beta",
    b"openai-beta",
)
"""Request headers that an answer depends on."""


class Directives(msgspec.Struct, frozen=True):
    """What a request's `Cache-Control` allows."""

    look: bool = True
    keep: bool = True
    max_age_s: int | None = None


_ALL = Directives()


def directives(value: bytes | None) -> Directives:
    """Read a `Cache-Control` header. What is not known is ignored."""
    if value is None:
        return _ALL
    look = keep = True
    max_age_s: int | None = None
    for part in value.lower().split(b","):
        name, _, argument = part.strip().partition(b"=")
        if name == b"no-store":
            look = keep = False
        elif name == b"no-cache":
            look = False
        elif name == b"max-age" and argument.strip(b'"').isdigit() and len(argument) < 12:
            max_age_s = int(argument.strip(b'"'))
    return Directives(look, keep, max_age_s)


class _ReadSource:
    """A source whose body has been read; its client is the same."""

    __slots__ = ("_body", "_source")

    def __init__(self, source: Source, body: bytes) -> None:
        self._source = source
        self._body = body

    async def read(self, limit: int, timeout_s: float) -> bytes | Problem:
        """See `Source`."""
        return self._body

    def watch(self, interruption: Interruption) -> None:
        """See `Source`."""
        self._source.watch(interruption)

    def unwatch(self) -> None:
        """See `Source`."""
        self._source.unwatch()


class _Recorder:
    """Passes an answer on and keeps a copy, as long as it may be kept."""

    __slots__ = ("_body", "_headers", "_left", "_status", "_streamed", "_wire", "finished")

    def __init__(self, wire: Wire, largest_bytes: int) -> None:
        self._wire = wire
        self._left = largest_bytes
        self._status = 0
        self._headers: list[Header] = []
        self._streamed = True
        self._body: list[bytes] = []
        self.finished = False

    def start(self, status: int, headers: list[Header]) -> Awaitable[None] | None:
        """See `Wire`."""
        return self._wire.start(status, self._begin(status, headers))

    def write(self, data: bytes) -> Awaitable[None] | None:
        """See `Wire`."""
        self._add(data)
        return self._wire.write(data)

    def finish(self, data: bytes = b"") -> Awaitable[None] | None:
        """See `Wire`."""
        self._add(data)
        self.finished = True
        return self._wire.finish(data)

    def whole(self, status: int, headers: list[Header], body: bytes) -> Awaitable[None] | None:
        """See `Wire`."""
        self._streamed, self.finished = False, True
        self._add(body)
        return self._wire.whole(status, self._begin(status, headers), body)

    def answer(self, made_s: float) -> Answer | None:
        """What may be kept: a finished 200 that is not too large."""
        if self._status != 200 or not self.finished or self._left < 0:
            return None
        return Answer(200, lasting(self._headers), b"".join(self._body), self._streamed, made_s)

    def _begin(self, status: int, headers: list[Header]) -> list[Header]:
        self._status, self._headers = status, headers
        return [*headers, MISS]

    def _add(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left >= 0:
            self._body.append(data)
        else:
            self._body.clear()


class AnswerCache:
    """One process's cache."""

    def __init__(self, shelf: Shelf, wall_clock: Callable[[], float]) -> None:
        """`wall_clock` gives seconds since 1970."""
        self._shelf = shelf
        self._wall_clock = wall_clock

    async def serve(
        self, arrival: Arrival, key: Key, body: bytes, delivery: Delivery, produce: Produce
    ) -> Literal["hit", "miss", "made"]:
        """Deliver the answer; see `Replays.serve`."""
        allowed = directives(arrival.headers.get(b"cache-control"))
        source = _ReadSource(arrival.source, body)
        if arrival.route.kind not in KINDS or not (allowed.look or allowed.keep):
            await produce(_inner(arrival, key, source, arrival.wire))
            return "made"
        name = await cache_key(arrival, key, body)
        if allowed.look and (found := self._find(name, allowed.max_age_s)) is not None:
            answer, age_s = found
            arrival.source.watch(delivery.interruption)
            await answer.replay(delivery, [*arrival.envelope.headers(), HIT, (b"age", b"%d" % age_s)])
            return "hit"
        recorder = _Recorder(arrival.wire, self._shelf.largest_bytes)
        exchange = await produce(_inner(arrival, key, source, recorder))
        made = recorder.answer(self._wall_clock()) if exchange.failure is None and allowed.keep else None
        if made is not None:
            self._shelf.put(name, name, made)
        return "miss"

    def _find(self, name: bytes, max_age_s: int | None) -> tuple[Answer, int] | None:
        """An answer and its age in seconds."""
        kept = self._shelf.get(name)
        if kept is None:
            return None
        age_s = max(0, int(self._wall_clock() - kept.answer.made_s))
        return None if max_age_s is not None and age_s > max_age_s else (kept.answer, age_s)


async def cache_key(arrival: Arrival, key: Key, body: bytes) -> bytes:
    """SHA-256 of all that the answer depends on."""
    scopes = key.scopes
    allowed = [
        None if names is None else sorted(names)
        for names in (scopes.models, scopes.backends, scopes.quants, scopes.endpoints)
    ]
    chosen = [arrival.headers.get(name) for name in _DECISIVE]
    question = (arrival.route.kind, arrival.route.path, key.tenant, allowed, chosen)
    return await sha256(msgspec.msgpack.encode(question), body)


def _inner(arrival: Arrival, key: Key, source: Source, wire: Wire) -> Arrival:
    return Arrival(
        route=arrival.route,
        headers=arrival.headers,
        server=arrival.server,
        source=source,
        wire=wire,
        envelope=arrival.envelope,
        key=key,
        priority=arrival.priority,
    )
