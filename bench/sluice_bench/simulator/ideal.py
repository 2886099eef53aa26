"""The most that a fleet could do with what it was asked: what a policy's goodput is held against.

The work of requests on engines of one shape, from below:

- each token that no earlier prompt began with is prefilled once, by somebody: the fleet's prefix cache is
  taken to be without end, and to be everywhere;
- each output token but the first costs `sequence_s`;
- each step costs `step_s`, and there are no fewer steps than a full batch, a full KV cache and full chunks
  allow.

Capacity is told for requests as they come. Goodput counts requests, so whoever must refuse some does best to
refuse the longest: the ideal serves the cheapest ones first. `most_good` cannot be exceeded by anybody, since
it charges nothing at all for what is shared; `ideal_share` charges each request with what is new in it.
"""

from __future__ import annotations

import statistics
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate

import msgspec

from sluice_bench.simulator.engine_shape import EngineShape
from sluice_bench.simulator.tally import Tally
from sluice_bench.simulator.traffic import Request, Traffic, TrafficShape
from sluice_bench.workloads.presets import PRESETS

SAMPLE = 4000
"""Requests that a capacity is computed from, the first half of them only to fill the caches."""


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """Of one request, tokens."""

    new: int
    """Without what an earlier prompt began with."""
    own: int
    """Without what it shares at all."""
    decoded: int


class EndlessCache:
    """Finds what is new in each prompt."""

    def __init__(self) -> None:
        self._longest: dict[int, int] = {}

    def work(self, stream: int, shared: int, prompt: int, output: int) -> Work:
        """Of the next request."""
        known = min(shared, self._longest.get(stream, 0)) if shared else 0
        if shared:
            # What answers a prompt that is all stream is part of what the stream goes on with.
            told = prompt + output - 1 if shared == prompt else shared
            self._longest[stream] = max(self._longest.get(stream, 0), told)
        return Work(new=max(1, prompt - known), own=max(1, prompt - shared), decoded=output - 1)


def fleet_seconds(work: Sequence[Work], shape: EngineShape) -> float:
    """Seconds of one engine that all of it takes at least."""
    new = sum(one.new for one in work)
    decoded = sum(one.decoded for one in work)
    held = sum((one.own + one.decoded / 2) * one.decoded for one in work)
    steps = max(decoded / shape.max_running, (new + decoded) / shape.chunk_tokens, held / shape.kv_tokens)
    return new / shape.prefill_tokens_per_s + decoded * shape.sequence_s + steps * shape.step_s


def capacity_per_s(shape: EngineShape, traffic: TrafficShape, replicas: int, seed: int) -> float:
    """Requests a second that so many engines could bear of this traffic, at most."""
    cache = EndlessCache()
    work = [
        cache.work(request.facts.stream_id, request.facts.shared, request.prompt, request.output)
        for request, _ in _sample(traffic, seed)
    ]
    counted = work[SAMPLE // 2 :]
    return replicas * len(counted) / fleet_seconds(counted, shape)


def mean_cycle_s(shape: EngineShape, traffic: TrafficShape, seed: int) -> float | None:
    """Seconds from one prompt of a session to the next on an empty engine; `None` without sessions."""
    if PRESETS[traffic.preset].sessions is None:
        return None
    alone_s = shape.step_s + shape.sequence_s
    return statistics.fmean(
        think_s
        + (request.prompt - request.facts.shared) / shape.prefill_tokens_per_s
        + request.output * alone_s
        for request, think_s in _sample(traffic, seed)
    )


def _sample(traffic: TrafficShape, seed: int) -> list[tuple[Request, float]]:
    """Requests with the times that their users think before them."""
    source = Traffic(traffic, seed)
    if source.sessions is None:
        return [(source.next(), 0.0) for _ in range(SAMPLE)]
    users = source.sessions * traffic.copies
    return [source.next_round(place % users) for place in range(SAMPLE)]


def ideal_share(tally: Tally, first: int, seconds: float, replicas: int, shape: EngineShape) -> float:
    """Share of the requests from `first` on, which came within `seconds`, that could be served whole."""
    work = works(tally)[first:]
    served = _served((one.new for one in work), (one.decoded for one in work), seconds * replicas, shape)
    return served / len(work)


def works(tally: Tally) -> list[Work]:
    """Of all requests, in order."""
    cache = EndlessCache()
    return list(map(cache.work, tally.stream, tally.shared, tally.prompt, tally.output))


def most_good(tally: Tally, seconds: float, replicas: int, shape: EngineShape) -> int:
    """Requests that could be served whole in that time, whichever are chosen, what is shared for free."""
    work = works(tally)
    return _served((one.own for one in work), (one.decoded for one in work), seconds * replicas, shape)


def _served(prefilled: Iterable[int], decoded: Iterable[int], engine_s: float, shape: EngineShape) -> int:
    """How many of the cheapest requests fit into so much time of engines."""
    prefill_s, token_s = 1 / shape.prefill_tokens_per_s, shape.sequence_s + shape.step_s / shape.max_running
    costs = sorted(p * prefill_s + d * token_s for p, d in zip(prefilled, decoded, strict=True))
    return bisect_right(list(accumulate(costs)), engine_s)
