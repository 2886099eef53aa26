"""Requests of one class that wait for the same endpoints: the least served tenant first, and of a tenant what
is due first.

Every operation is O(log n), amortized, with n requests waiting. What is taken out of the middle leaves an
entry behind in the heaps, which is skipped when it comes up and swept out when such entries are the majority.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

from sluice_router.fairness import FairShare

T = TypeVar("T")
Lane = frozenset[str]
"""The ids of the endpoints that an item may be placed on."""
Place = tuple[float, int]
"""Deadline, and order of arrival among equals. Unique."""

_SLACK = 32
"""Entries of a heap that have left and are put up with, beside as many as are there."""


class Entry(Generic[T]):
    """One item, from its push to its removal."""

    __slots__ = ("band", "item", "place", "serial", "shelf", "tenant", "until", "weight")

    def __init__(
        self, place: Place, item: T, band: int, tenant: str, weight: float, until: float, serial: int
    ) -> None:
        self.place = place
        self.item = item
        self.band = band
        self.tenant = tenant
        self.weight = weight
        self.until = until
        """When its wait is over, whatever happens."""
        self.serial = serial
        """Unlike that of any other, whereas an item that waits again has the place that it had."""
        self.shelf: Shelf[T] | None = None
        """Where it lies; `None` once it has left the queue."""


class _Line(Generic[T]):
    """Some of a shelf's entries, by place."""

    __slots__ = ("_heap", "_shelf", "size")

    def __init__(self, shelf: Shelf[T]) -> None:
        self._shelf = shelf
        self._heap: list[tuple[float, int, int, Entry[T]]] = []
        self.size = 0

    def put(self, entry: Entry[T]) -> None:
        deadline, order = entry.place
        heappush(self._heap, (deadline, order, entry.serial, entry))
        self.size += 1

    def shrink(self) -> None:
        """One of the entries has left the shelf."""
        self.size -= 1
        heap = self._heap
        if len(heap) > 2 * self.size + _SLACK:
            heap[:] = [filed for filed in heap if filed[3].shelf is self._shelf]
            heapify(heap)

    def first(self) -> Entry[T]:
        """Of those that are there, of which there has to be one."""
        heap = self._heap
        while heap[0][3].shelf is not self._shelf:
            heappop(heap)
        return heap[0][3]


class Shelf(Generic[T]):
    """The waiting requests of a lane and class."""

    def __init__(self, lane: Lane, band: int) -> None:
        self.lane = lane
        self.band = band
        self.shares = FairShare()
        self._all: _Line[T] = _Line(self)
        self._lines: dict[str, _Line[T]] = {}

    def __len__(self) -> int:
        return self._all.size

    def put(self, entry: Entry[T], at: int) -> None:
        """Lay down an entry that lies nowhere. `at` grows from call to call."""
        entry.shelf = self
        self._all.put(entry)
        line = self._lines.get(entry.tenant)
        if line is None:
            line = self._lines[entry.tenant] = _Line(self)
            line.put(entry)
            self.shares.enter(entry.tenant, entry.weight, entry.place, at)
        else:
            line.put(entry)
            self.shares.rerank(entry.tenant, line.first().place)

    def take(self, entry: Entry[T]) -> None:
        """Take away an entry that lies here."""
        entry.shelf = None
        self._all.shrink()
        line = self._lines[entry.tenant]
        line.shrink()
        if line.size:
            self.shares.rerank(entry.tenant, line.first().place)
        else:
            del self._lines[entry.tenant]
            self.shares.leave(entry.tenant)

    def holds(self, tenant: str) -> bool:
        """Whether something of the tenant lies here."""
        return tenant in self._lines

    def first(self) -> T:
        """What goes next, by the shares and then by place. The shelf must not be empty."""
        tenant = self.shares.least()
        assert tenant is not None
        return self._lines[tenant].first().item

    def earliest(self) -> Place:
        """The first place of all. The shelf must not be empty."""
        return self._all.first().place
