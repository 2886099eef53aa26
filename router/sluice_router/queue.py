"""The waiting room: first in, first out among requests that wait for the same endpoints.

Items are kept in lanes, one for each distinct set of endpoints waited for, so that a request for a full
backend never stands in the way of one for a free backend. Within a lane, and between lanes that share an
endpoint, the smallest order number goes first. Removal from any place is O(1); nothing of a removed item is
kept. Insertion is O(1) at the end of a lane and O(lane) elsewhere, which only a retried request needs.

Knows nothing of health, room, or what an item is. The bound on its length is the caller's to keep.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")
Lane = frozenset[str]
"""The ids of the endpoints that an item may be placed on."""


class WaitingQueue(Generic[T]):
    """Ordered waiting items, by lane and by deadline."""

    def __init__(self) -> None:
        self._lanes: dict[Lane, OrderedDict[int, T]] = {}
        self._lane_of: dict[int, Lane] = {}
        self._deadlines: OrderedDict[int, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._lane_of)

    def __iter__(self) -> Iterator[T]:
        """All items, lane by lane."""
        return (item for lane in self._lanes.values() for item in lane.values())

    def push(self, order: int, item: T, lane: Lane, deadline: float) -> None:
        """Add an item under its unique `order`. Deadlines must not decrease from one push to the next."""
        members = self._lanes.setdefault(lane, OrderedDict())
        _insert(members, order, item)
        self._lane_of[order] = lane
        self._deadlines[order] = deadline

    def remove(self, order: int) -> None:
        """Take an item out. Does nothing when it is not waiting."""
        lane = self._lane_of.pop(order, None)
        if lane is None:
            return
        del self._deadlines[order]
        members = self._lanes[lane]
        del members[order]
        if not members:
            del self._lanes[lane]

    def move(self, order: int, lane: Lane) -> None:
        """Put a waiting item into another lane; its order and deadline stay."""
        old = self._lanes[self._lane_of[order]]
        item = old.pop(order)
        if not old:
            del self._lanes[self._lane_of[order]]
        _insert(self._lanes.setdefault(lane, OrderedDict()), order, item)
        self._lane_of[order] = lane

    def oldest_for(self, endpoint_id: str) -> T | None:
        """The item with the smallest order among those that wait for the endpoint."""
        heads = (next(iter(items.items())) for lane, items in self._lanes.items() if endpoint_id in lane)
        head = min(heads, key=_order_of, default=None)
        return None if head is None else head[1]

    def count_overlapping(self, lane: Lane) -> int:
        """Items that wait for at least one of the endpoints in `lane`."""
        return sum(len(items) for other, items in self._lanes.items() if not other.isdisjoint(lane))

    def expired(self, now: float) -> list[T]:
        """Items whose deadline is at or before `now`, earliest deadline first. They stay in the queue."""
        late = []
        for order, deadline in self._deadlines.items():
            if deadline > now:
                break
            late.append(self._lanes[self._lane_of[order]][order])
        return late

    def next_deadline(self) -> float | None:
        """The earliest deadline of all; `None` when nothing waits."""
        return next(iter(self._deadlines.values()), None)


def _order_of(head: tuple[int, object]) -> int:
    return head[0]


def _insert(members: OrderedDict[int, T], order: int, item: T) -> None:
    """Keep `members` sorted by order: what is younger than the new item is appended again after it."""
    younger = []
    while members and next(reversed(members)) > order:
        younger.append(members.popitem())
    members[order] = item
    members.update(reversed(younger))
