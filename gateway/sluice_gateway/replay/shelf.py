"""Answers kept in memory: for so long, so many bytes, and those unused for longest go first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import msgspec

from sluice_gateway.replay.answer import Answer

_LARGEST_SHARE = 8


class Kept(msgspec.Struct, frozen=True):
    """An answer and what it was the answer to."""

    digest: bytes
    """SHA-256 of the request."""
    answer: Answer
    until_s: float
    """On the monotonic clock."""


class Shelf:
    """Bounded in bytes and time. Names are whatever tells requests apart."""

    def __init__(self, max_bytes: int, ttl_s: float, clock: Callable[[], float]) -> None:
        """`clock` gives monotonic seconds."""
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        self._clock = clock
        self._kept: OrderedDict[bytes, Kept] = OrderedDict()
        self.size_bytes = 0
        """Never more than the bound."""

    @property
    def largest_bytes(self) -> int:
        """No larger answer is kept, so that one cannot drive out all others."""
        return self._max_bytes // _LARGEST_SHARE

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, name: bytes) -> Kept | None:
        """What is kept under a name and not too old."""
        kept = self._kept.get(name)
        if kept is None:
            return None
        if kept.until_s <= self._clock():
            self._remove(name)
            return None
        self._kept.move_to_end(name)
        return kept

    def put(self, name: bytes, digest: bytes, answer: Answer) -> bool:
        """Keep an answer in place of an earlier one. False when it is too large."""
        if answer.size_bytes > self.largest_bytes:
            return False
        if name in self._kept:
            self._remove(name)
        self._kept[name] = Kept(digest, answer, self._clock() + self._ttl_s)
        self.size_bytes += answer.size_bytes
        while self.size_bytes > self._max_bytes:
            self._remove(next(iter(self._kept)))
        return True

    def _remove(self, name: bytes) -> None:
        self.size_bytes -= self._kept.pop(name).answer.size_bytes
