"""What the clients of a simulated fleet ask: a preset's requests, as the router and the engines see them.

Lengths, shared prefixes and arrivals are the presets' own (`workloads/presets.py`), the same that a live
server is loaded with. Added here: how many copies of the preset's streams there are (a fleet of a thousand
engines has more applications than one of eight), who asks (tenants), how urgently (classes), and what the
client does when it is refused.

A prompt is numbers: the hash chain of its blocks, where the blocks of one stream are the same in each prompt
that shares them and all others are nobody else's. The numbers of one prompt are a multiplicative sequence: as
evenly spread over 64 bits as hashes, on which whoever files them by their leading bits relies.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from enum import IntEnum
from itertools import accumulate
from typing import Generic, TypeVar

import msgspec
import numpy as np

from sluice_bench.workloads.preset_plan import Planned, requests, session
from sluice_bench.workloads.presets import PRESETS, PresetName
from sluice_router.types import RequestFacts

MODEL = "simulated"
_CHAIN_TOKENS = 64
_LONGEST_CHAIN = 4096
_STEPS = np.arange(_LONGEST_CHAIN, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
"""From a chain's first number to each, modulo 2**64: multiples of the golden ratio (Knuth, volume 3)."""

T = TypeVar("T")


class Client(IntEnum):
    """What a client does that is refused."""

    LEAVE = 0
    OBEY = 1
    """It waits exactly as long as `Retry-After` says and asks again."""
    HAMMER = 2
    """It asks again at once, whatever it is told."""


class Facts(RequestFacts, frozen=True, kw_only=True):
    """A request's facts, and what baselines that keep a tree of prompts would find in the text."""

    stream_id: int = -1
    shared: int = 0
    """Tokens of the prompt that are the beginning of the stream."""


class TrafficShape(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks for what. Shares need not add up to 1."""

    preset: PresetName
    copies: int = 1
    """Each preset's groups or sessions, so many times."""
    fit: int | None = None
    """Scale lengths down to a context of so many tokens."""
    tenants: tuple[float, ...] = (1.0,)
    """The share of each in the requests."""
    classes: Mapping[str, float] = msgspec.field(default_factory=lambda: {"interactive": 1.0})
    clients: Mapping[str, float] = msgspec.field(default_factory=lambda: {"leave": 1.0})
    """By the names of `Client`, in lower case."""


class Request:
    """One request of one client, however often it is tried."""

    __slots__ = ("arrived", "client", "facts", "lane", "number", "output", "prompt", "tries")

    def __init__(self, number: int, facts: Facts, output: int, client: Client, lane: int) -> None:
        self.number = number
        self.facts = facts
        self.prompt = facts.prompt_tokens_estimate
        self.output = output
        self.client = client
        self.lane = lane
        """Of a session: which of those that run at once."""
        self.arrived = 0.0
        self.tries = 0


class Traffic:
    """Draws requests one by one."""

    def __init__(self, shape: TrafficShape, seed: int) -> None:
        self.shape = shape
        self.drawn = 0
        self._source = random.Random(f"{shape.preset}:{seed}:who")
        self._seed = seed
        self._copies = [
            requests(shape.preset, seed * 10_007 + copy, shape.fit) if self.sessions is None else iter(())
            for copy in range(shape.copies)
        ]
        self._numbers: dict[str, int] = {}
        self._tenants = Dice({f"tenant-{place}": share for place, share in enumerate(shape.tenants)})
        self._classes = Dice(shape.classes)
        self._clients = Dice({Client[name.upper()]: share for name, share in shape.clients.items()})
        self._rounds: dict[int, Iterator[Planned]] = {}
        self._session_number = 0

    @property
    def sessions(self) -> int | None:
        """How many sessions of the preset run at once; `None` when its requests come by themselves."""
        sessions = PRESETS[self.shape.preset].sessions
        return None if sessions is None else sessions.at_once

    def next(self) -> Request:
        """A request of a preset without sessions."""
        source = self._source
        copy = int(source.random() * len(self._copies))
        return self._request(next(self._copies[copy]), copy, -1)

    def next_round(self, lane: int) -> tuple[Request, float]:
        """The next round of a lane's session, and how long its user thinks before it, seconds."""
        planned = next(self._rounds.get(lane, iter(())), None)
        if planned is None:
            self._session_number += 1
            rounds = session(self.shape.preset, self._session_number, self._seed, self.shape.fit)
            self._rounds[lane] = rounds
            planned = next(rounds)
        return self._request(planned, self._session_number, lane), planned.think_ns / 1e9

    def _request(self, planned: Planned, copy: int, lane: int) -> Request:
        self.drawn += 1
        source, shared = self._source, planned.shared
        stream = self._stream(f"{copy}/{planned.prefix}") if shared else -1
        prompt, output = planned.input, planned.output
        chain = self._chain(stream, shared, prompt)
        facts = Facts(
            request_id=str(self.drawn),
            kind="chat",
            model=MODEL,
            tenant=self._tenants.throw(source),
            priority=self._classes.throw(source),
            session=f"{copy}/{planned.prefix}" if lane >= 0 else None,
            stream_id=stream,
            shared=shared,
            prompt_tokens_estimate=prompt,
            max_tokens=max(output, 4096),
            stream=True,
            repeatable=True,
            prefix=chain,
            prefix_block_tokens=_CHAIN_TOKENS,
        )
        return Request(self.drawn - 1, facts, output, self._clients.throw(source), lane)

    def _stream(self, name: str) -> int:
        return self._numbers.setdefault(name, len(self._numbers))

    def _chain(self, stream: int, shared: int, prompt: int) -> tuple[int, ...]:
        """A number for each whole block."""
        blocks = min(prompt // _CHAIN_TOKENS, _LONGEST_CHAIN)
        common = min(shared // _CHAIN_TOKENS, blocks)
        own = _numbers(mixed(-self.drawn), blocks - common)
        return (*_numbers(mixed(stream), common), *own) if common else tuple(own)


def _numbers(first: int, length: int) -> list[int]:
    """So many hashes, that are the same for the same first one."""
    return (np.uint64(first) + _STEPS[:length]).tolist()  # type: ignore[no-any-return]


class Dice(Generic[T]):
    """Throws one of several things, each as often as its share says."""

    def __init__(self, shares: Mapping[T, float]) -> None:
        """Raises `ValueError` unless there is a positive share and none is negative."""
        if not shares or min(shares.values()) < 0 or sum(shares.values()) <= 0:
            raise ValueError("shares must not be negative, and one must be positive")
        self._things = list(shares)
        self._sums = list(accumulate(shares.values()))

    def throw(self, source: random.Random) -> T:
        """One of them."""
        if len(self._things) == 1:
            return self._things[0]
        at = source.random() * self._sums[-1]
        return next(thing for thing, upto in zip(self._things, self._sums, strict=True) if at < upto)


def mixed(number: int) -> int:
    """62 bits that look random (the finaliser of SplitMix64)."""
    number = (number + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    number = ((number ^ (number >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    number = ((number ^ (number >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return (number ^ (number >> 31)) >> 2
