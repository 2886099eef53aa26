"""Placement rules that others publish, written anew from their descriptions, to be compared with.

| name | rule | source | |---|---|---| | random, round-robin | as they say | | | least-outstanding | fewest
requests in flight | Envoy, Ray Serve | | power-of-two | the emptier of two drawn at random | Mitzenmacher
2001 | | consistent-hash | a ring by the beginning of the prompt | SMG, production-stack | | cache-aware |
longest match if it is half of the prompt, else the emptiest tree; shortest queue when unbalanced | SGLang |
| weighted-scorers | 2 queue + 2 KV use + 3 prefix match | llm-d's defaults |
| lmetric | least (queued + new prefill tokens) x (batch + 1) | LMetric, OSDI'26 |
| dual-hash | the better of two hashed candidates by the same product, no admission | DualMap, ICLR'26 |

None of them has a tuning knob here: constants are the published ones. `View` says what each can know.
"""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Callable, Mapping

import numpy as np

from sluice_bench.simulator.baseline_router import Floats, Strategy, View
from sluice_bench.simulator.prefix_history import PrefixHistory
from sluice_bench.simulator.traffic import Facts, mixed

MATCH_THRESHOLD = 0.5
BALANCE_ABS, BALANCE_REL = 32, 1.1
QUEUE_WEIGHT, KV_WEIGHT, PREFIX_WEIGHT = 2.0, 2.0, 3.0
_POINTS = 100
"""Of each replica on the ring."""


class Memory:
    """What all strategies share: a source of randomness and a history of their own placements."""

    def __init__(self, replicas: int, kv_tokens: int, source: random.Random) -> None:
        self.source = source
        self.history = PrefixHistory(replicas, kv_tokens)
        self._turn = 0

    def placed(self, replica: int, facts: Facts) -> None:
        """See `Strategy`."""
        self.history.place(replica, facts.stream_id, facts.shared, facts.prompt_tokens_estimate)

    def expected_new(self, replica: int, facts: Facts) -> int:
        """See `Strategy`."""
        match = self.history.matches(facts.stream_id, facts.shared) if facts.shared else {}
        return max(1, facts.prompt_tokens_estimate - match.get(replica, 0))

    def lost(self, replica: int) -> None:
        """See `Strategy`."""
        self.history.drop(replica)

    def least(self, costs: Floats, view: View) -> int:
        """The healthy replica with the smallest cost; equals take turns."""
        self._turn += 1
        costs = np.where(view.unhealthy, np.inf, costs)
        ties = np.flatnonzero(costs == costs.min())
        return int(ties[self._turn % len(ties)])

    def new_tokens(self, view: View, facts: Facts) -> Floats:
        """Tokens that each replica would have to prefill."""
        new = np.full(view.replicas, float(facts.prompt_tokens_estimate))
        if facts.shared:
            for replica, match in self.history.matches(facts.stream_id, facts.shared).items():
                new[replica] -= match
        new[new < 1.0] = 1.0
        return new


def key_of(facts: Facts) -> int:
    """What hashing goes by: the first block of the prompt."""
    return facts.prefix[0] if facts.prefix else mixed(int(facts.request_id))


class Random(Memory):
    """Any."""

    def pick(self, view: View, facts: Facts) -> int:
        """See `Strategy`."""
        return view.healthy[int(self.source.random() * len(view.healthy))]


class RoundRobin(Memory):
    """Each in turn."""

    def pick(self, view: View, facts: Facts) -> int:
        """See `Strategy`."""
        self._turn += 1
        return view.healthy[self._turn % len(view.healthy)]


class LeastOutstanding(Memory):
    """The emptiest."""

    def pick(self, view: View, facts: Facts) -> int:
        """See `Strategy`."""
        return self.least(view.load, view)


class PowerOfTwo(Memory):
    """The emptier of two."""

    def pick(self, view: View, facts: Facts) -> int:
        """See `Strategy`."""
        healthy, draw = view.healthy, self.source.random
        one, other = (healthy[int(draw() * len(healthy))] for _ in range(2))
        return min(one, other, key=lambda at: view.in_flight[at] + view.others[at])


class ConsistentHash(Memory):
    """By the beginning of the prompt."""

    def __init__(self, replicas: int, kv_tokens: int, source: random.Random) -> None:
        super().__init__(replicas, kv_tokens, source)
        points = sorted((mixed(mixed(at) + point), at) for at in range(replicas) for point in range(_POINTS))
        self._keys = [key for key, _ in points]
        self._owners = [owner for _, owner in points]

    def pick(self, view: View, facts: Facts) -> int:
        """See `Strategy`."""
        at = bisect_left(self._keys, mixed(key_of(facts)))
        while True:
            owner = self._owners[at % len(self._owners)]
            if not view.unhealthy[owner]:
                return owner
            at += 1


class CacheAware(Memory):
    """SGLang's rule: stick to the cache while loads are balanced."""

    def pick(self, view: View, facts: Facts) -> int:
        """See `Strategy`."""
        load = view.in_flight[view.healthy] if view.unhealthy.any() else view.in_flight
        low, high = float(load.min()), float(load.max())
        if high - low > BALANCE_ABS and high > BALANCE_REL * low:
            return self.least(view.in_flight, view)
        matches = self.history.matches(facts.stream_id, facts.shared) if facts.shared else {}
        healthy = {at: match for at, match in matches.items() if not view.unhealthy[at]}
        if healthy:
            best = max(healthy, key=lambda at: healthy[at])
            if healthy[best] > MATCH_THRESHOLD * facts.prompt_tokens_estimate:
                return best
        return self.least(np.array(self.history.tokens, dtype=np.float64), view)


class WeightedScorers(Memory):
    """llm-d's default weights. Load is the engines' own word alone, as there."""

    def pick(self, view: View, facts: Facts) -> int:
        """See `Strategy`."""
        low, high = float(view.waiting.min()), float(view.waiting.max())
        score = KV_WEIGHT * (1.0 - view.kv_used)
        score += QUEUE_WEIGHT * ((high - view.waiting) / (high - low) if high > low else 1.0)
        if facts.shared:
            for replica, match in self.history.matches(facts.stream_id, facts.shared).items():
                score[replica] += PREFIX_WEIGHT * match / facts.prompt_tokens_estimate
        return self.least(-score, view)


class LMetric(Memory):
    """Prefill ahead times batch."""

    def pick(self, view: View, facts: Facts) -> int:
        """See `Strategy`."""
        cost = (view.queued_tokens + self.new_tokens(view, facts)) * (view.load + 1.0)
        return self.least(cost, view)


class DualHash(Memory):
    """The better of two candidates that hashing names."""

    def pick(self, view: View, facts: Facts) -> int:
        """See `Strategy`."""
        key, healthy = key_of(facts), view.healthy
        one = healthy[mixed(key) % len(healthy)]
        other = healthy[mixed(key ^ 0x5DEECE66D) % len(healthy)]
        matches = self.history.matches(facts.stream_id, facts.shared) if facts.shared else {}

        def cost(at: int) -> float:
            new = max(1, facts.prompt_tokens_estimate - matches.get(at, 0))
            queued = view.prefill_tokens[at] + view.others_tokens[at] + new
            return float(queued * (view.in_flight[at] + view.others[at] + 1.0))

        return min(one, other, key=cost)


BASELINES: Mapping[str, Callable[[int, int, random.Random], Strategy]] = {
    "random": Random,
    "round-robin": RoundRobin,
    "least-outstanding": LeastOutstanding,
    "power-of-two": PowerOfTwo,
    "consistent-hash": ConsistentHash,
    "cache-aware": CacheAware,
    "weighted-scorers": WeightedScorers,
    "lmetric": LMetric,
    "dual-hash": DualHash,
}
"""By name: from replicas, KV tokens of each and a source of randomness to a strategy."""
