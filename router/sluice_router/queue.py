"""The waiting room: the most urgent first among requests that wait for the same endpoints.

Items are kept on shelves, one for each distinct set of endpoints waited for and class of urgency, so that a
request for a full backend never stands in the way of one for a free backend. Within a shelf, and between
shelves that share an endpoint, the smallest place goes first. A place is a rank (a virtual deadline: time of
arrival plus what the class may be kept waiting for others) and the order of arrival: earliest deadline first,
which is what keeps every class from starving (`priority.py`).

Removal from anywhere is O(1); nothing of a removed item is kept. Insertion is O(1) at the end of a shelf,
where requests of one class arrive in turn, and O(shelf) elsewhere, which only a retried request needs.

Knows nothing of health, room, or what an item is. The bound on its length is the caller's to keep.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from heapq import merge
from typing import Generic, TypeVar

T = TypeVar("T")
Lane = frozenset[str]
"""The ids of the endpoints that an item may be placed on."""
Place = tuple[float, int]
"""Rank, and order of arrival among equals. Unique."""
_Shelf = tuple[Lane, int]


class WaitingQueue(Generic[T]):
    """Waiting items, by place and by deadline."""

    def __init__(self) -> None:
        self._shelves: dict[_Shelf, OrderedDict[Place, T]] = {}
        self._shelf_of: dict[Place, _Shelf] = {}
        self._deadlines: OrderedDict[Place, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._shelf_of)

    def __iter__(self) -> Iterator[T]:
        """All items, shelf by shelf."""
        return (item for items in self._shelves.values() for item in items.values())

    def push(self, place: Place, item: T, lane: Lane, band: int, deadline: float) -> None:
        """Add an item of a class of urgency, 0 being the highest.

        Deadlines must not decrease from one push to the next.
        """
        self._put(place, item, (lane, band))
        self._deadlines[place] = deadline

    def remove(self, place: Place) -> None:
        """Take an item out. Does nothing when it is not waiting."""
        if place in self._shelf_of:
            del self._deadlines[place]
            self._take(place)

    def move(self, place: Place, lane: Lane) -> None:
        """Have a waiting item wait for other endpoints; its place and deadline stay."""
        old_lane, band = self._shelf_of[place]
        if old_lane != lane:
            self._put(place, self._take(place), (lane, band))

    def first_for(self, endpoint_id: str) -> T | None:
        """The item with the smallest place among those that wait for the endpoint."""
        heads = (next(iter(s.items())) for (lane, _), s in self._shelves.items() if endpoint_id in lane)

        head = min(heads, key=_place_of, default=None)
        return None if head is None else head[1]

    def from_the_last(self, band: int) -> Iterator[T]:
        """The items of all classes less urgent than `band`: the least urgent class first, and in it the one
        with the greatest place first."""
        for lower in sorted({b for _, b in self._shelves if b > band}, reverse=True):
            shelves = [reversed(items.items()) for (_, b), items in self._shelves.items() if b == lower]
            for _, item in merge(*shelves, key=_place_of, reverse=True):
                yield item

    def heads(self) -> Iterator[tuple[Lane, Place]]:
        """The first place of every shelf, with the endpoints that it is for."""
        return ((lane, next(iter(items))) for (lane, _), items in self._shelves.items())

    def expired(self, now: float) -> list[T]:
        """Items whose deadline is at or before `now`, earliest deadline first. They stay in the queue."""
        late = []
        for place, deadline in self._deadlines.items():
            if deadline > now:
                break
            late.append(self._shelves[self._shelf_of[place]][place])
        return late

    def next_deadline(self) -> float | None:
        """The earliest deadline of all; `None` when nothing waits."""
        return next(iter(self._deadlines.values()), None)

    def _put(self, place: Place, item: T, shelf: _Shelf) -> None:
        """Keep the shelf sorted: what comes after the new item is appended again behind it."""
        items = self._shelves.setdefault(shelf, OrderedDict())
        later = []
        while items and next(reversed(items)) > place:
            later.append(items.popitem())
        items[place] = item
        items.update(reversed(later))
        self._shelf_of[place] = shelf

    def _take(self, place: Place) -> T:
        shelf = self._shelf_of.pop(place)
        items = self._shelves[shelf]
        item = items.pop(place)
        if not items:
            del self._shelves[shelf]
        return item


def _place_of(entry: tuple[Place, object]) -> Place:
    return entry[0]
