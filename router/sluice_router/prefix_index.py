"""Which beginnings of prompts an engine's cache probably holds: the blocks of one endpoint, in few bytes.

The blocks are the numbers of `prefix_chain.py`. Invariants, whatever is inserted:

- there are never more blocks than the cap;
- a block is there only if the block before it is: so the longest known beginning is found by halving, and
  nothing is claimed that was not inserted as a whole.

Least recently used, to an eighth of the cap: a block belongs to the generation in which it was last used. An
insertion uses the whole chain, so that no block is in an older generation than the blocks after it; room is
made by forgetting the oldest generation, which costs nothing: what is older than the oldest is as good as
gone, and its slot is taken when somebody needs it.

A block takes a slot of ten bytes: its number, and its generation. A number has `WINDOW` slots to be in, from
one that it determines; C code searches them (`bytearray.find`). At most every second slot is in use: 20 bytes
to a block of a full table; a smaller one is made anew, twice as large, until it is. Should a window be full
the rest of the chain is not noted. Generations instead of a list of all blocks by use are the idea of clock
algorithms (Corbató, *A paging experiment with the Multics system*, 1968).

Does not know whether the engine really has the blocks, nor for how long.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from sys import byteorder

GENERATIONS = 8
"""Into which a full table is divided, at least."""
WINDOW = 32
"""Slots that a number may be in."""
SPARE = 2
"""Slots to a block."""
SMALLEST = 64
"""Blocks that the first table has room for."""
_WINDOW_BYTES = 8 * WINDOW
_LAST_GENERATION = 65535


class BlockTable:
    """The blocks of one endpoint."""

    __slots__ = (
        "_counts",
        "_generations",
        "_keys",
        "_lately",
        "_newest",
        "_oldest",
        "_room",
        "_slots",
        "blocks",
        "cap",
    )

    def __init__(self, cap: int, room: int = SMALLEST) -> None:
        """`cap`: blocks at most, at least 1. `room`: blocks that it has room for without having to grow."""
        self.cap = cap
        self.blocks = 0
        """That are there now."""
        self._make(min(cap, room))
        self._oldest = self._newest = 1
        self._counts: dict[int, int] = {1: 0}
        """Blocks by generation, from the oldest to the newest."""
        self._lately = 1
        """What `depth` returned last, where that was more: the next chain often begins alike."""

    @property
    def size_bytes(self) -> int:
        """Memory that it takes, but for a few hundred bytes."""
        return len(self._keys) + 2 * len(self._generations)

    def depth(self, chain: Sequence[int], salt: int = 0) -> int:
        """How many blocks of the chain are there, from its beginning on. `salt` is another chain's with the
        same prompt: what all numbers are combined with, as in `insert`."""
        if not chain or self._slot(chain[0] ^ salt) < 0:
            return 0
        known, missing = 1, len(chain) + 1
        middle = self._lately if 1 < self._lately < missing else len(chain)
        following = middle + 1
        while missing - known > 1:
            if self._slot(chain[middle - 1] ^ salt) >= 0:
                known = middle
            else:
                missing = middle
            middle = following if known < following < missing else (known + missing) // 2
            following = len(chain)
        self._lately = known
        return known

    def insert(self, chain: Sequence[int], cap: int | None = None, salt: int = 0) -> None:
        """The chain was used: note its blocks, and forget the least recently used ones for it.

        Of a chain longer than the cap only the beginning is noted. `cap` lowers the cap.
        """
        limit = self.cap if cap is None else max(1, min(cap, self.cap))
        length = min(len(chain), limit)
        if self._counts[self._newest] + length > limit // GENERATIONS:
            self.begin_generation()
        known = min(self.depth(chain, salt), length)
        wanted = min(limit, self.blocks + length - known)
        if wanted > self._room:
            self._grow(min(self.cap, max(wanted, 2 * self._room)))
        self._touch(chain, known, salt)
        while self.blocks + length - known > limit:
            self.forget_oldest()
        for index in range(known, length):
            if not self._put(chain[index] ^ salt):
                break

    def begin_generation(self) -> int:
        """What is used from now on belongs to a new generation. Returns its number."""
        if self._newest == _LAST_GENERATION:
            self.clear()
        elif self._counts[self._newest]:
            self._newest += 1
            self._counts[self._newest] = 0
        return self._newest

    def forget_oldest(self) -> None:
        """Forget the oldest generation that has blocks; the newest, if it is the only one."""
        if len(self._counts) == 1:
            self.clear()
            return
        gone = 0
        while not gone and len(self._counts) > 1:
            gone = self._counts.pop(self._oldest)
            self.blocks -= gone
            self._oldest += 1

    def forget_before(self, generation: int) -> None:
        """Forget all generations before this one."""
        while self._oldest < min(generation, self._newest):
            self.blocks -= self._counts.pop(self._oldest)
            self._oldest += 1

    def clear(self) -> None:
        """Forget everything."""
        self._generations = array("H", bytes(2 * (self._slots + WINDOW)))
        self._oldest = self._newest = 1
        self._counts = {1: 0}
        self.blocks = 0

    def _make(self, room: int) -> None:
        """Have an empty table with room for so many blocks."""
        self._room = room
        self._slots = SPARE * room
        self._keys = bytearray(8 * (self._slots + WINDOW))
        self._generations = array("H", bytes(2 * (self._slots + WINDOW)))

    def _grow(self, room: int) -> None:
        """Have a larger table with the same blocks."""
        numbers, generations = array("Q", bytes(self._keys)), self._generations
        if byteorder == "big":
            numbers.byteswap()
        self._make(room)
        fresh, keys, slots = self._generations, self._keys, self._slots
        for slot, generation in enumerate(generations):
            if generation >= self._oldest:
                number = numbers[slot]
                first = place = number * slots >> 64
                while place < first + WINDOW and fresh[place]:
                    place += 1
                if place == first + WINDOW:
                    # Hardly ever; but without this block those after it must not be there.
                    self.clear()
                    return
                fresh[place] = generation
                keys[8 * place : 8 * place + 8] = number.to_bytes(8, "little")

    def _slot(self, number: int) -> int:
        """Where a block is; -1 when it is not there."""
        slot = self._found(number)
        return slot if slot >= 0 and self._generations[slot] >= self._oldest else -1

    def _found(self, number: int) -> int:
        """Where a number is written, be it forgotten; -1 when it is not."""
        start = (number * self._slots >> 64) << 3
        end = start + _WINDOW_BYTES
        key = number.to_bytes(8, "little")
        at = self._keys.find(key, start, end)
        while at >= 0 and at & 7:
            at = self._keys.find(key, at + 1, end)
        return at >> 3

    def _touch(self, chain: Sequence[int], known: int, salt: int) -> None:
        """The chain's first blocks, which are there, were used.

        From the last one back, as far as there are any of an older generation: what is before a block of the
        newest is of the newest.
        """
        generations, newest, counts = self._generations, self._newest, self._counts
        for index in range(known - 1, -1, -1):
            slot = self._slot(chain[index] ^ salt)
            generation = generations[slot]
            if generation == newest:
                break
            generations[slot] = newest
            counts[generation] -= 1
            counts[newest] += 1

    def _put(self, number: int) -> bool:
        """Write a block that is not there. False when its window is full."""
        slot = self._found(number)
        if slot < 0:
            first = number * self._slots >> 64
            slot = self._free(first)
            if slot < 0:
                return False
            self._keys[8 * slot : 8 * slot + 8] = number.to_bytes(8, "little")
        self._generations[slot] = self._newest
        self._counts[self._newest] += 1
        self.blocks += 1
        return True

    def _free(self, first: int) -> int:
        """The first slot of a window whose block is forgotten; -1 when there is none."""
        generations, oldest = self._generations, self._oldest
        for slot in range(first, first + WINDOW):
            if generations[slot] < oldest:
                return slot
        return -1
