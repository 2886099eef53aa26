"""Who holds how much of the room to wait, within one class: whoever holds most gives way when it is full.

Source of the rule: longest queue drop, as in stochastic fair queueing (McKenney, 1990). It leaves a tenant
its part of the room however many requests others send, and whoever sends more than that displaces only
itself. Every operation is O(log tenants), amortized.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

from sluice_router.shelf import Entry

T = TypeVar("T")

_SLACK = 32


class _Holding(Generic[T]):
    """What one tenant has waiting."""

    __slots__ = ("changed_at", "entries", "weight")

    def __init__(self, weight: float) -> None:
        self.weight = weight
        self.changed_at = 0
        self.entries: OrderedDict[int, Entry[T]] = OrderedDict()
        """By order of arrival; the last one is the newest."""

    @property
    def share(self) -> float:
        return len(self.entries) / self.weight


class Crowd(Generic[T]):
    """The waiting entries of one class, by tenant."""

    def __init__(self) -> None:
        self._holdings: dict[str, _Holding[T]] = {}
        self._heap: list[tuple[float, int, _Holding[T]]] = []
        """Who holds most, and did so last, first. An entry of an earlier change is void."""
        self._changes = 0

    def __len__(self) -> int:
        return len(self._holdings)

    def put(self, entry: Entry[T]) -> None:
        """An entry begins to wait. One that had waited before is not the newest."""
        holding = self._holdings.get(entry.tenant)
        if holding is None:
            holding = self._holdings[entry.tenant] = _Holding(entry.weight)
        entries, order = holding.entries, entry.place[1]
        is_newest = not entries or next(reversed(entries)) < order
        entries[order] = entry
        if not is_newest:
            entries.move_to_end(order, last=False)
        holding.weight = entry.weight
        self._file(holding)

    def take(self, entry: Entry[T]) -> None:
        """An entry waits no more."""
        holding = self._holdings[entry.tenant]
        del holding.entries[entry.place[1]]
        if not holding.entries:
            del self._holdings[entry.tenant]
        self._file(holding)

    def share_with_one_more(self, tenant: str, weight: float) -> float:
        """How much a tenant would hold, by weight, if one more of its requests waited."""
        holding = self._holdings.get(tenant)
        return (1 if holding is None else len(holding.entries) + 1) / weight

    def giving_way(self, more_than: float = 0.0) -> Iterator[T]:
        """What to refuse for want of room, one after the other, as if each was gone when the next is asked
        for: the newest of the tenant that holds most then, while that is more than so much.

        Only the first one is O(log tenants); whoever needs more pays for looking at every tenant once.
        """
        heap = self._heap
        while heap and heap[0][1] != -heap[0][2].changed_at:
            heappop(heap)
        if not heap or heap[0][2].share <= more_than:
            return
        greediest = heap[0][2]
        yield next(reversed(greediest.entries.values())).item
        rest = [
            (-h.share, -h.changed_at, h.weight, reversed(h.entries.values())) for h in self._holdings.values()
        ]
        heapify(rest)
        changes, is_first = self._changes, True
        while rest and -rest[0][0] > more_than:
            share, _, weight, entries = heappop(rest)
            entry = next(entries)
            if not is_first:
                yield entry.item
            is_first = False
            left = round(-share * weight) - 1
            changes += 1
            if left:
                heappush(rest, (-left / weight, -changes, weight, entries))

    def _file(self, holding: _Holding[T]) -> None:
        self._changes += 1
        holding.changed_at = self._changes
        heap = self._heap
        if len(heap) > 2 * len(self._holdings) + _SLACK:
            heap[:] = [filed for filed in heap if filed[1] == -filed[2].changed_at]
            heapify(heap)
        if holding.entries:
            heappush(heap, (-holding.share, -self._changes, holding))
