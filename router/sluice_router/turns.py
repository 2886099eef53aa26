"""Whose turn it is at one endpoint, where several classes or lanes wait for it.

Between classes deadlines decide, as they would if everybody else had just come: a request lets more urgent
ones pass for as long as a newcomer among them would have the earlier deadline, which is the difference of the
classes' deadlines. From then on its class takes turns with the more urgent one, and gets a third of what that
one is given, in cost, since both have been waiting (`PART`).

So no class is pushed aside by one that is asked for too much: to those that wait in it in vain, being late
makes nobody more urgent, and default requests that have run over their time take no more than a quarter of an
endpoint from interactive ones, and get that quarter however many interactive ones come. Within a class, lanes
share an endpoint by the weight of the tenants that wait in them, so that it does not matter much to a tenant
which other endpoints it could be served by.

Shares are counted in estimated costs, as start-time fair queueing does (Goyal, Vin and Cheng, 1996): who
begins to wait is put level with the least served of those that already do, and who stops is forgotten. That
somebody begins or stops is noticed when the endpoint's next turn is decided; in between nothing is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

from sluice_router.shelf import Place, Shelf

T = TypeVar("T")

PART = 3.0
"""What a class gets of a contended endpoint, where deadlines do not decide, for 1 of the next less urgent."""


class Turns(Generic[T]):
    """What one endpoint gave to the classes and shelves that wait for it."""

    __slots__ = ("_bands", "_deadlines_s", "_shelves")

    def __init__(self, deadlines_s: Sequence[float]) -> None:
        """`deadlines_s`: of the classes, by band."""
        self._deadlines_s = deadlines_s
        self._bands: dict[int, float] = {}
        self._shelves: dict[Shelf[T], float] = {}

    def choose(self, waiting: Sequence[Shelf[T]], now: float) -> Shelf[T]:
        """Of the shelves that wait for the endpoint, at least one, the one to take the next request from."""
        self._notice(waiting)
        earliest: dict[int, Place] = {}
        for shelf in waiting:
            place, band = shelf.earliest(), shelf.band
            if band not in earliest or place < earliest[band]:
                earliest[band] = place
        chosen = self._class(earliest, now)
        best: Shelf[T] | None = None
        for shelf in waiting:
            if shelf.band == chosen and (best is None or self._key(shelf) < self._key(best)):
                best = shelf
        assert best is not None
        return best

    def charge(self, shelf: Shelf[T] | None, band: int, cost: float, weight: float) -> None:
        """A request of the class was placed here, from a shelf if it still waits, for tenants of so much
        weight."""
        if band in self._bands:
            self._bands[band] += cost * PART**band
        if shelf is not None and shelf in self._shelves:
            self._shelves[shelf] += cost / weight

    def _class(self, earliest: dict[int, Place], now: float) -> int:
        """The band whose turn it is, by the earliest deadline in each."""
        bands = sorted(earliest)
        chosen = bands[0]
        for band in bands[1:]:
            if earliest[band][0] > now + self._deadlines_s[chosen]:
                continue
            behind = self._bands[chosen] - self._bands[band]
            if behind > 0.0 or (behind == 0.0 and earliest[band] < earliest[chosen]):
                chosen = band
        return chosen

    def _key(self, shelf: Shelf[T]) -> tuple[float, Place]:
        return self._shelves[shelf], shelf.earliest()

    def _notice(self, waiting: Sequence[Shelf[T]]) -> None:
        """Put newcomers level with the least served, and forget who does not wait any more."""
        bands, shelves = self._bands, self._shelves
        known_bands: dict[int, float] = {}
        known_shelves: dict[Shelf[T], float] = {}
        level: dict[int, float] = {}
        for shelf in waiting:
            band = shelf.band
            if band in bands:
                known_bands[band] = bands[band]
            if shelf in shelves:
                given = known_shelves[shelf] = shelves[shelf]
                level[band] = min(level.get(band, given), given)
        lowest = min(known_bands.values(), default=0.0)
        for shelf in waiting:
            known_bands.setdefault(shelf.band, lowest)
            known_shelves.setdefault(shelf, level.get(shelf.band, 0.0))
        self._bands, self._shelves = known_bands, known_shelves
