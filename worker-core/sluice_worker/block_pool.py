"""Fixed-size pages of the KV cache: who holds them, what they contain, and which one goes next.

A block is *used* while a live request references it, else *free*. A free block may still be *cached*: it
holds the keys and values of a known run of tokens and can be shared again until it is given away. One doubly
linked list of the free blocks carries everything: its order **is** the eviction order.

- Blocks that hold nothing go to the front, so nothing cached is lost while an empty block is left.
- Cached blocks go to the back, a request's last block first, so that the tail of a chain is evicted before
  its head (a head without its tail is still worth something, a tail without its head can never be hit).

A full block is known by a digest of its tokens *and everything before them*, chained from its parent's
digest, starting from the salt of the request. Digests are 128 bits of BLAKE2b: two prompts cannot be made to
collide.

Every operation costs O(blocks touched). This module knows no tensors, no requests and no clock.
After vLLM's free-block queue and automatic prefix caching.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Sequence

from sluice_worker.errors import IntegrityError


def root_digest(salt: str) -> bytes:
    """The parent of every first block in one salt: no prefix is shared between salts."""
    return hashlib.blake2b(salt.encode(), digest_size=16).digest()


def block_digest(parent: bytes, tokens: Sequence[int]) -> bytes:
    """Identity of a full block: its tokens, after the tokens that `parent` stands for."""
    return hashlib.blake2b(parent + array("I", tokens).tobytes(), digest_size=16).digest()


class Block:
    """One page, and its place in the free list when nobody references it."""

    __slots__ = ("digest", "index", "next", "previous", "references")

    def __init__(self, index: int) -> None:
        self.index = index
        self.references = 0
        self.digest: bytes | None = None
        self.previous: Block = self
        self.next: Block = self

    def unlink(self) -> None:
        """Leave the list."""
        self.previous.next = self.next
        self.next.previous = self.previous
        self.previous = self.next = self

    def link_before(self, other: Block) -> None:
        """Join the list in front of `other`."""
        self.previous, self.next = other.previous, other
        other.previous.next = self
        other.previous = self


class BlockPool:
    """All blocks of one KV cache. Block ids are indices in `[0, num_blocks)`."""

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.block_size = block_size
        self._blocks = [Block(index) for index in range(num_blocks)]
        self._by_digest: dict[bytes, Block] = {}
        self._end = Block(-1)  # the list is a ring: _end.next is the next to go, _end.previous the last
        self._num_free = num_blocks
        self._num_cached = 0
        for block in self._blocks:
            block.link_before(self._end)

    @property
    def num_blocks(self) -> int:
        """Blocks in all: used plus free."""
        return len(self._blocks)

    @property
    def num_free(self) -> int:
        """Blocks that `allocate` can give, cached ones included."""
        return self._num_free

    @property
    def num_used(self) -> int:
        """Blocks that a live request references."""
        return len(self._blocks) - self._num_free

    @property
    def num_cached(self) -> int:
        """Free blocks that hold a prefix which may be hit."""
        return self._num_cached

    def blocks_for(self, num_tokens: int) -> int:
        """How many blocks `num_tokens` tokens need."""
        return -(-num_tokens // self.block_size)

    def allocate(self, count: int) -> list[int]:
        """Take the `count` blocks that are next in eviction order, with one reference each.

        What they held is forgotten. The caller has checked `num_free`.
        """
        taken = []
        for _ in range(count):
            block = self._end.next
            self._take(block)
            self._forget(block)
            taken.append(block.index)
        return taken

    def match(self, digests: Sequence[bytes]) -> list[int]:
        """Blocks holding the longest known prefix of a chain of digests. References nothing."""
        found = []
        for digest in digests:
            block = self._by_digest.get(digest)
            if block is None:
                break
            found.append(block.index)
        return found

    def count_free(self, indices: Sequence[int]) -> int:
        """How many of these blocks nobody references: sharing them lowers `num_free` by as much."""
        return sum(not self._blocks[index].references for index in indices)

    def share(self, indices: Sequence[int]) -> None:
        """Add a reference to each block. Freed again, they count as the most recently used."""
        for index in indices:
            block = self._blocks[index]
            if block.references:
                block.references += 1
            else:
                self._take(block)

    def register(self, index: int, digest: bytes) -> None:
        """Make a used block findable, once the keys and values of all its tokens are really there.

        When another block already holds the same tokens, that one stays the known one.
        """
        block = self._blocks[index]
        if block.digest is None and digest not in self._by_digest:
            block.digest = digest
            self._by_digest[digest] = block

    def free(self, indices: Sequence[int]) -> None:
        """Drop one reference from each block of a request, given in the order of its tokens."""
        for index in reversed(indices):
            block = self._blocks[index]
            block.references -= 1
            if not block.references:
                self._give_back(block)

    def references(self, index: int) -> int:
        """How many requests hold this block."""
        return self._blocks[index].references

    def check_integrity(self) -> None:
        """Raise `IntegrityError` unless list, references and digests tell the same story. O(blocks)."""
        listed = list(self._free_list())
        if len(listed) != self._num_free or len(set(listed)) != len(listed):
            raise IntegrityError(f"{self._num_free} blocks are free, but the list holds {len(listed)}.")
        if any(block.references for block in listed):
            raise IntegrityError("A referenced block is in the free list.")
        if any(block.references < 0 for block in self._blocks):
            raise IntegrityError("A block was freed more often than it was taken.")
        if sum(not block.references for block in self._blocks) != self._num_free:
            raise IntegrityError("A block that nobody references is missing from the free list.")
        named = {block.digest: block for block in self._blocks if block.digest is not None}
        if named != self._by_digest:
            raise IntegrityError("The digests of the blocks and the table of digests differ.")
        if sum(block.digest is not None for block in listed) != self._num_cached:
            raise IntegrityError(f"{self._num_cached} free blocks are said to be cached; others are.")

    def _take(self, block: Block) -> None:
        block.unlink()
        block.references = 1
        self._num_free -= 1
        self._num_cached -= block.digest is not None

    def _give_back(self, block: Block) -> None:
        block.link_before(self._end if block.digest is not None else self._end.next)
        self._num_free += 1
        self._num_cached += block.digest is not None

    def _forget(self, block: Block) -> None:
        if block.digest is not None:
            del self._by_digest[block.digest]
            block.digest = None

    def _free_list(self) -> Iterator[Block]:
        block = self._end.next
        while block is not self._end:
            yield block
            block = block.next
