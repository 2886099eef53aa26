"""Which endpoints computed the beginning of a prompt lately: for a block of a chain, up to four of them.

It finds the endpoint that a conversation is on when that is not where its key says: after an overflow, a
failure, or a change of the fleet. Only two blocks of every prompt are noted, its last one, where the next
turn goes on, and its key (`candidates.py`); so it is small, and costs one look-up a block.

Bounded by two dictionaries of at most `LIMIT` blocks: a full one becomes the old one, and what was in the old
one is forgotten unless it was used meanwhile. Does not know how much of a prompt an endpoint still has.
"""

from __future__ import annotations

from collections.abc import Sequence

OWNERS = 4
LIMIT = 16_384
"""Blocks in one of the two dictionaries; 130 bytes each."""
_BITS = 16
_MASK = (1 << _BITS) - 1
_ALL = (1 << _BITS * OWNERS) - 1


class PrefixOwners:
    """The owners of blocks, by the endpoints' numbers (0 to 65,534)."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._young: dict[int, int] = {}
        """Owners of a block, 16 bits each, the last one lowest; each is the number and one."""
        self._old: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def note(self, block: int, endpoint: int) -> None:
        """The endpoint computes this block, and all before it."""
        packed = self._young.pop(block, 0) or self._old.pop(block, 0)
        kept, shift, own = endpoint + 1, _BITS, endpoint + 1
        while packed:
            if packed & _MASK != own:
                kept |= (packed & _MASK) << shift
                shift += _BITS
            packed >>= _BITS
        if len(self._young) >= self._limit:
            self._old, self._young = self._young, {}
        self._young[block] = kept & _ALL

    def find(self, chain: Sequence[int]) -> tuple[int, ...]:
        """The owners of the longest beginning of the chain that has any, the last one first."""
        young, old = self._young, self._old
        for block in reversed(chain):
            packed = young.get(block, 0)
            if not packed and old:
                packed = old.get(block, 0)
            if packed:
                return _unpacked(packed)
        return ()

    def of(self, block: int) -> tuple[int, ...]:
        """The owners of one block."""
        return _unpacked(self._young.get(block, 0) or self._old.get(block, 0))


def _unpacked(packed: int) -> tuple[int, ...]:
    owners = []
    while packed:
        owners.append((packed & _MASK) - 1)
        packed >>= _BITS
    return tuple(owners)
