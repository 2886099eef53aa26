"""Which few of many endpoints a prompt may go to, so that its beginning is in their caches.

Every endpoint has `POINTS` places on a ring, from hashes of its id; a key has places there from hashes of
its own, and each leads to the next endpoint on the ring. So gateways agree with nothing shared, and when an
endpoint goes or comes, only the keys that were, or will be, its own move. That is what rendezvous hashing
promises as well, which has to look at all endpoints for every key; here a thousand cost no more than ten. A
key has two candidates, so that its load can be divided where it falls, which is what hashing to one alone
cannot do. Sources: Karger and others, *Consistent hashing and random trees*, 1997; *DualMap*, 2026, for two
candidates to a prefix.

The key of a prompt is a block of its chain, the first: what follows may differ, and the key must not change
from turn to turn. A key that has more than its share of the traffic gets four candidates, then eight; and one
that has even more is replaced by a later block, where prompts differ, if they do; if not, it gets as many
endpoints as it needs, of which each prompt looks at eight. What is hot counts as if all candidates had it in
their caches: else the first to have it would get nearly all requests, whatever its load. All of it is decided
by shares of the traffic, which gateways see alike.
"""

from __future__ import annotations

from array import array
from bisect import bisect
from collections.abc import Iterable, Sequence
from math import inf

from xxhash import xxh3_64_intdigest

from sluice_router.key_traffic import FEW, KeyTraffic
from sluice_router.replica import Replica

POINTS = 64
"""Of one endpoint; with so many its share of the keys is right to an eighth. A ring of a thousand endpoints
takes 20 ms to make, once; one of a part of them is picked out of that."""
WIDEST = 8
"""Candidates that a prompt has by its key at most."""
_INDEX = (1 << 16) - 1
_NOTICEABLE = 4
"""Requests with a block before the blocks after it are counted as well."""


class Pool:
    """The endpoints that can serve one kind of demand, and the ring that they are on."""

    __slots__ = ("_ring", "_whole", "members", "numbers")

    def __init__(self, members: Iterable[Replica], whole: Pool | None = None) -> None:
        """`members`, at most 65,536, never change: another set is another pool. `whole`: a pool that has all
        of them, in the same order."""
        self.members = tuple(members)
        self._whole = whole
        self.numbers = 0
        """Their numbers, as bits."""
        for replica in self.members:
            self.numbers |= 1 << replica.number
        self._ring: array[int] | None = None

    def usable(self, key: int, width: int, excluded: frozenset[str], skip: int = 0) -> list[Replica]:
        """The key's first `width` different endpoints that are usable, be they full, and not excluded by id;
        fewer only when there are no more. `skip`: begin with a later place of the key."""
        if len(self.members) == 1:
            only = self.members[0]
            return [only] if width and only.usable and only.endpoint.id not in excluded else []
        ring, name = self.ring(), key.to_bytes(8, "little")
        found: list[Replica] = []
        for turn in range(skip, skip + min(width, len(self.members))):
            start = bisect(ring, xxh3_64_intdigest(name, turn))
            for step in range(len(ring)):
                replica = self.members[ring[(start + step) % len(ring)] & _INDEX]
                if (
                    replica.usable
                    and replica not in found
                    and not (excluded and replica.endpoint.id in excluded)
                ):
                    found.append(replica)
                    break
            else:
                break
        return found

    def ring(self) -> array[int]:
        """Places, in order; the lowest 16 bits are the member's index."""
        if self._ring is None:
            whole = self._whole
            if whole is None or 4 * len(self.members) < len(whole.members):
                self._ring = _ring(self.members)
            else:
                self._ring = _part(whole, self.members)
        return self._ring

    def some_usable(self, key: int, spread: int, chance: float, excluded: frozenset[str]) -> list[Replica]:
        """Up to `WIDEST` usable ones of a hot key's `spread` endpoints; `chance`, 0 to 1, decides which."""
        members = self.members
        if 2 * spread < len(members):
            return self.usable(key, WIDEST, excluded, int(chance * spread))
        first = int(chance * len(members))
        found: list[Replica] = []
        for turn in range(len(members)):
            replica = members[(first + turn) % len(members)]
            if replica.usable and replica.endpoint.id not in excluded:
                found.append(replica)
                if len(found) == WIDEST:
                    break
        return found


def _ring(members: Sequence[Replica]) -> array[int]:
    places = []
    for index, replica in enumerate(members):
        name = replica.endpoint.id.encode()
        for point in range(POINTS):
            places.append(xxh3_64_intdigest(name, point) & ~_INDEX | index)
    places.sort()
    return array("Q", places)


def _part(whole: Pool, members: Sequence[Replica]) -> array[int]:
    """The ring of some of a pool's members."""
    indexes = {replica.endpoint.id: index for index, replica in enumerate(members)}
    new = [indexes.get(replica.endpoint.id, -1) for replica in whole.members]
    return array(
        "Q", [place & ~_INDEX | new[place & _INDEX] for place in whole.ring() if new[place & _INDEX] >= 0]
    )


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
    requests, length = traffic.requests, len(chain)
    key, share, hot_blocks, depth = 0, inf, 0, 1
    while depth <= length:
        block = chain[depth - 1]
        count = traffic.note(block)
        own_share = count / requests if count >= FEW else 0.0  # `KeyTraffic.share`, without looking twice
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
