"""The waiting room: who among all that wait for an endpoint gets it next, and who gives way when it is full.

Items lie on shelves, one for each set of endpoints waited for and class of urgency, so that a request for a
full backend never stands in the way of one for a free backend. An endpoint that has room takes

- the class whose turn it is, by deadlines and by parts (`turns.py`);
- within the class, the tenant that was given least (`fairness.py`, `shelf.py`);
- of that tenant, what is due first, then what came first.

When there is no room to wait, the newest request of whoever holds most of it gives way (`crowd.py`).

Every operation is O(log n) in the number of waiting items, and at most linear in the number of shelves, which
is that of different demands, not of requests. Nothing of a removed item is kept beyond what its tenant is
charged with; and nothing at all once nobody waits.

Knows nothing of health, room, or what an item is. The bound on its length is the caller's to keep.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from heapq import heapify, heappop, heappush
from itertools import islice
from typing import Generic, TypeVar

from sluice_router.crowd import Crowd
from sluice_router.priority import DEADLINES_S
from sluice_router.shelf import Entry, Lane, Place, Shelf
from sluice_router.turns import Turns

T = TypeVar("T")

UNSENT = 65536
"""Entries of a delta that are kept for whoever fetches it; what comes on top is not told to others."""

Service = tuple[str, int, str, float]
"""Endpoint, band, tenant, cost: what somebody was given. A correction may be negative."""

_SLACK = 32


class Charge:
    """What a tenant is charged with for one request, until it is known what that has cost."""

    __slots__ = ("at", "band", "cost", "endpoint_id", "tenant")

    def __init__(self, endpoint_id: str, band: int, tenant: str, cost: float, at: int) -> None:
        self.endpoint_id = endpoint_id
        self.band = band
        self.tenant = tenant
        self.cost = cost
        self.at = at
        """When, in events of the queue."""


class WaitingQueue(Generic[T]):
    """Waiting items, in the order in which endpoints take them and in that in which waits end."""

    def __init__(
        self, deadlines_s: Sequence[float] = tuple(DEADLINES_S.values()), *, shared: bool = False
    ) -> None:
        """`deadlines_s`: of the classes, by band. `shared`: keep what is charged, for `export_delta`."""
        self._deadlines_s = deadlines_s
        self._entries: dict[Place, Entry[T]] = {}
        self._shelves: dict[tuple[Lane, int], Shelf[T]] = {}
        self._narrow: dict[str, list[Shelf[T]]] = {}
        """Those for one endpoint alone, of which there may be as many as endpoints;"""
        self._wide: list[Shelf[T]] = []
        """and all others."""
        self._claimed: Lane | None = frozenset()
        """All endpoints that somebody waits for; `None` when that has to be found anew."""
        self._turns: dict[str, Turns[T]] = {}
        self._crowds: dict[int, Crowd[T]] = {}
        self._ends: list[tuple[float, int, Entry[T]]] = []
        self._events = 0
        self._unsent: dict[tuple[str, int, str], float] | None = {} if shared else None

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[T]:
        """All items, in the order in which they began to wait."""
        return iter([entry.item for entry in self._entries.values()])

    def oldest(self, most: int) -> list[T]:
        """The first of these, so many at most."""
        return [entry.item for entry in islice(self._entries.values(), most)]

    def push(
        self,
        place: Place,
        item: T,
        lane: Lane,
        band: int,
        until: float,
        tenant: str = "",
        weight: float = 1.0,
    ) -> None:
        """Add a tenant's item of a class of urgency, 0 being the highest, that waits until then at most."""
        self._events += 1
        entry = Entry(place, item, band, tenant, weight, until, self._events)
        self._entries[place] = entry
        self._put(entry, lane)
        heappush(self._ends, (until, entry.serial, entry))
        crowd = self._crowds.get(band)
        if crowd is None:
            crowd = self._crowds[band] = Crowd()
        crowd.put(entry)

    def remove(self, place: Place) -> None:
        """Take an item out. Does nothing when it is not waiting."""
        entry = self._entries.pop(place, None)
        if entry is None:
            return
        self._take(entry)
        crowd = self._crowds[entry.band]
        crowd.take(entry)
        if not len(crowd):
            del self._crowds[entry.band]
        if not self._entries:
            self._turns.clear()
        ends = self._ends
        if len(ends) > 2 * len(self._entries) + _SLACK or not self._entries:
            ends[:] = [end for end in ends if end[2].shelf is not None]
            heapify(ends)

    def move(self, place: Place, lane: Lane) -> None:
        """Have a waiting item wait for other endpoints; all else of it stays."""
        entry = self._entries[place]
        if entry.shelf is not None and entry.shelf.lane != lane:
            self._take(entry)
            self._put(entry, lane)

    def first_for(self, endpoint_id: str, now: float) -> T | None:
        """The item that is to be placed on the endpoint next; `None` when none waits for it."""
        waiting = [shelf for shelf in self._wide if endpoint_id in shelf.lane]
        waiting += self._narrow.get(endpoint_id, ())
        if not waiting:
            return None
        turns = self._turns.get(endpoint_id)
        if turns is None:
            turns = self._turns[endpoint_id] = Turns(self._deadlines_s)
        return turns.choose(waiting, now).first()

    def leads(self, place: Place) -> bool:
        """Whether a waiting item is what its shelf would give next."""
        entry = self._entries[place]
        return entry.shelf is not None and entry.shelf.first() is entry.item

    def charge(
        self, endpoint_id: str, lane: Lane, band: int, tenant: str, cost: float, weight: float = 1.0
    ) -> Charge:
        """Note that an item of this kind, waiting or not until now, was placed on the endpoint.

        It counts for every set of tenants that compete for the endpoint in this class.
        """
        self._events += 1
        for shelf in self._competing(endpoint_id, band):
            shelf.shares.charge(tenant, cost)
        turns = self._turns.get(endpoint_id)
        if turns is not None:
            own = self._shelves.get((lane, band))
            total = weight if own is None else own.shares.weight_with(tenant, weight)
            turns.charge(own, band, cost, total)
        self._note(endpoint_id, band, tenant, cost)
        return Charge(endpoint_id, band, tenant, cost, self._events)

    def settle(self, charge: Charge, cost: float) -> None:
        """Put a charge right. To be called once for each, be it with the cost that was charged."""
        difference = cost - charge.cost
        for shelf in self._competing(charge.endpoint_id, charge.band):
            shelf.shares.correct(charge.tenant, difference, charge.at)
        if difference:
            self._note(charge.endpoint_id, charge.band, charge.tenant, difference)

    def from_the_last(self, band: int, tenant: str = "", weight: float = 1.0) -> Iterator[T]:
        """What gives way, one after the other, for a tenant's item of this class when the room is full.

        The least urgent class comes first, and in each the newest item of the tenant that holds most. In the
        newcomer's own class it ends where that tenant would not hold more than the newcomer, by weight.
        """
        for lower in sorted((b for b in self._crowds if b > band), reverse=True):
            yield from self._crowds[lower].giving_way()
        own = self._crowds.get(band)
        if own is not None:
            yield from own.giving_way(own.share_with_one_more(tenant, weight))

    def claimed(self, place: Place | None = None) -> Lane:
        """The endpoints that somebody waits for; given the place of one who waits, somebody on another shelf
        than his, where he does not know whether his turn comes first."""
        entry = None if place is None else self._entries.get(place)
        own = None if entry is None else entry.shelf
        if own is not None:
            return self._claims(own)
        if self._claimed is None:
            self._claimed = self._claims(None)
        return self._claimed

    def rivals(self, lane: Lane, band: int, tenant: str, weight: float) -> float:
        """The sum of the weights of the tenants that wait for some of the endpoints in this class, and of
        this one. A tenant that waits for several sets of endpoints counts as often."""
        total, is_counted = 0.0, False
        for shelf in self._shelves.values():
            if shelf.band == band and (shelf.lane is lane or not shelf.lane.isdisjoint(lane)):
                total += shelf.shares.weight
                is_counted = is_counted or shelf.holds(tenant)
        return total if is_counted else total + weight

    def expired(self, now: float) -> list[T]:
        """Items whose wait is over, the earliest first. They stay in the queue."""
        late = []
        while self._ends and self._ends[0][0] <= now:
            end = heappop(self._ends)
            if end[2].shelf is not None:
                late.append(end)
        for end in late:
            heappush(self._ends, end)
        return [end[2].item for end in late]

    def next_deadline(self) -> float | None:
        """The earliest end of a wait; `None` when nothing waits."""
        ends = self._ends
        while ends and ends[0][2].shelf is None:
            heappop(ends)
        return ends[0][0] if ends else None

    # With other gateways

    def export_delta(self) -> tuple[Service, ...]:
        """What was charged, and put right, since the last call; empty unless shared."""
        unsent = self._unsent
        if not unsent:
            return ()
        delta = tuple((*key, cost) for key, cost in unsent.items())
        unsent.clear()
        return delta

    def apply_delta(self, delta: Iterable[Service]) -> None:
        """Count what tenants that wait here were given by another gateway, as if it had been given here.

        Of one that has nothing waiting here nothing is known then: it begins level with the others.
        """
        for endpoint_id, band, tenant, cost in delta:
            for shelf in self._competing(endpoint_id, band):
                shelf.shares.add(tenant, cost)

    def _note(self, endpoint_id: str, band: int, tenant: str, cost: float) -> None:
        unsent = self._unsent
        if unsent is not None:
            key = (endpoint_id, band, tenant)
            if key in unsent or len(unsent) < UNSENT:
                unsent[key] = unsent.get(key, 0.0) + cost

    # Shelves

    def _competing(self, endpoint_id: str, band: int) -> list[Shelf[T]]:
        found = [s for s in self._wide if s.band == band and endpoint_id in s.lane]
        found += [s for s in self._narrow.get(endpoint_id, ()) if s.band == band]
        return found

    def _claims(self, but: Shelf[T] | None) -> Lane:
        """The endpoints of all shelves but for one."""
        claimed: Lane = frozenset()
        for shelf in self._wide:
            if shelf is not but and not shelf.lane <= claimed:
                claimed = claimed | shelf.lane if claimed else shelf.lane
        alone = [name for name, shelves in self._narrow.items() if len(shelves) > 1 or shelves[0] is not but]
        return claimed.union(alone) if alone and not claimed.issuperset(alone) else claimed

    def _put(self, entry: Entry[T], lane: Lane) -> None:
        key = (lane, entry.band)
        shelf = self._shelves.get(key)
        if shelf is None:
            shelf = self._shelves[key] = Shelf(lane, entry.band)
            self._claimed = None
            if len(lane) == 1:
                self._narrow.setdefault(next(iter(lane)), []).append(shelf)
            else:
                self._wide.append(shelf)
        self._events += 1
        shelf.put(entry, self._events)

    def _take(self, entry: Entry[T]) -> None:
        shelf = entry.shelf
        assert shelf is not None
        shelf.take(entry)
        if not len(shelf):
            self._clear_away(shelf)

    def _clear_away(self, shelf: Shelf[T]) -> None:
        """Nothing lies on the shelf any more."""
        lane = shelf.lane
        del self._shelves[(lane, shelf.band)]
        self._claimed = None
        if len(lane) != 1:
            self._wide.remove(shelf)
            return
        endpoint_id = next(iter(lane))
        beside = self._narrow[endpoint_id]
        beside.remove(shelf)
        if not beside:
            del self._narrow[endpoint_id]
