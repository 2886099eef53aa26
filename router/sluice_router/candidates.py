"""Which few of many endpoints a prompt may go to, so that its beginning is in their caches.

By rendezvous hashing each endpoint gets a score from a hash of its id and the key, and those with the highest
are the key's: the same in every gateway with nothing shared, and when an endpoint goes or comes, only the
keys that were, or will be, its own move. A key has two candidates, so that its load can be divided where it
falls, which is what hashing to one alone cannot do. Sources: Thaler and Ravishankar, *Using name-based
mappings to increase hit rates*, 1998; *DualMap*, 2026, for two candidates to a prefix.

Scores are computed for `SHARDS` shards of the keys and remembered, so that a decision among a thousand
endpoints looks at eight, not at a thousand.

The key of a prompt is a block of its chain, the first: what follows may differ, and the key must not change
from turn to turn. A key that has more than its share of the traffic gets four candidates, then eight; and one
that has even more is replaced by a later block, where prompts differ, if they do; if not, it gets as many
endpoints as it needs, of which each prompt looks at eight. What is hot counts as if all candidates had it in
their caches: else the first to have it would get nearly all requests, whatever its load. All of it is decided
by shares of the traffic, which gateways see alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from heapq import nlargest
from math import inf

from xxhash import xxh3_64_intdigest

from sluice_router.key_traffic import KeyTraffic
from sluice_router.replica import Replica

SHARDS = 1 << 14
WIDEST = 8
"""Candidates of one key at most."""
_SHARD_SHIFT = 64 - 14
_GOLDEN = 0x9E3779B97F4A7C15
"""The golden ratio in 64 bits: multiples of it are spread over all shards."""
_ALL = (1 << 64) - 1
_NOTICEABLE = 4
"""Requests with a block before the blocks after it are counted as well."""


class Pool:
    """The endpoints that can serve one kind of demand, ranked for any key."""

    __slots__ = ("_ids", "_ranked", "members", "numbers")

    def __init__(self, members: Iterable[Replica]) -> None:
        """`members` never change: another set is another pool."""
        self.members = tuple(members)
        self.numbers = 0
        """Their numbers, as bits."""
        for replica in self.members:
            self.numbers |= 1 << replica.number
        self._ids = [replica.endpoint.id.encode() for replica in self.members]
        self._ranked: dict[int, tuple[Replica, ...]] = {}

    def ranked(self, key: int, length: int = WIDEST) -> tuple[Replica, ...]:
        """The key's endpoints, well or not, best first: at least so many, or all if there are fewer."""
        shard = key >> _SHARD_SHIFT
        found = self._ranked.get(shard)
        if found is None or (len(found) < length and len(found) < len(self.members)):
            found = self._ranked[shard] = self._rank(shard, max(length, WIDEST))
        return found

    def best_usable(self, key: int, width: int, excluded: frozenset[str]) -> list[Replica]:
        """The first `width` of the key's endpoints that are usable, be they full, and not excluded by id.

        Only when nearly all that are remembered for the key are not, are all endpoints looked at.
        """
        found = _usable(self.ranked(key), width, excluded)
        if len(found) < width and len(self.members) > WIDEST:
            found = _usable(self._rank(key >> _SHARD_SHIFT, len(self.members)), width, excluded)
        return found

    def some_usable(self, key: int, spread: int, chance: float, excluded: frozenset[str]) -> list[Replica]:
        """`WIDEST` of the key's first `spread` endpoints, from a place on that `chance`, 0 to 1, decides;
        those that are usable and not excluded."""
        ranked = self.ranked(key, spread)
        spread = min(spread, len(ranked))
        first = int(chance * spread)
        some = [ranked[(first + turn) % spread] for turn in range(min(WIDEST, spread))]
        return _usable(some, WIDEST, excluded)

    def _rank(self, shard: int, length: int) -> tuple[Replica, ...]:
        seed = (shard + 1) * _GOLDEN & _ALL
        scores = [xxh3_64_intdigest(name, seed) for name in self._ids]
        best = nlargest(length, range(len(scores)), key=scores.__getitem__)
        return tuple([self.members[index] for index in best])


def _usable(replicas: Sequence[Replica], width: int, excluded: frozenset[str]) -> list[Replica]:
    found: list[Replica] = []
    for replica in replicas:
        if replica.usable and replica.endpoint.id not in excluded:
            found.append(replica)
            if len(found) == width:
                break
    return found


class Demand:
    """How much room a prompt's key needs."""

    __slots__ = ("hot_blocks", "key", "spread")

    def __init__(self, key: int, spread: int = 2, hot_blocks: int = 0) -> None:
        self.key = key
        self.spread = spread
        """Endpoints that are its candidates: 2, 4, `WIDEST`, or more, among which each prompt has some."""
        self.hot_blocks = hot_blocks
        """Blocks at its beginning that every candidate of the key should have, because they are asked for so
        often; whoever has them not yet will compute them once."""


def demand(chain: Sequence[int], traffic: KeyTraffic, endpoints: int, now: float) -> Demand:
    """The key of a prompt with this chain (not empty), by its traffic; it is counted there.

    `endpoints`: how many there are to share the load. A key with a share of s of the traffic needs s times as
    many to do its work, and gets twice that, for its load to be divided well.
    """
    traffic.request(now)
    key, share, hot_blocks, depth = 0, inf, 0, 1
    while depth <= len(chain):
        block = chain[depth - 1]
        count = traffic.note(block)
        own_share = traffic.share(block)
        if 2.0 * share * endpoints > WIDEST:
            key, share = block, own_share
        if own_share * endpoints > 1.0:
            hot_blocks = depth
        if count < _NOTICEABLE:
            break  # what comes after it is rarer still
        depth += 1 + depth // 4
    wanted = 2.0 * share * endpoints
    spread = 2 if wanted <= 2.0 else 4 if wanted <= 4.0 else max(WIDEST, min(endpoints, int(wanted)))
    return Demand(key, spread, hot_blocks)
