"""How a request gets blocks of the KV cache: page by page, or all it may ever need, in one piece.

`PagedAllocation` is what the engine is built for: a request holds the blocks of the tokens it has, gets more
as it grows, and shares those of a known prefix.

`DenseAllocation` is what servers did before, for comparison: a request reserves one contiguous run of blocks
for its prompt and all the tokens it may generate, before its first step, and shares nothing. It models the
reservation (memory held for answers that end early) and the fragmentation (free memory in pieces that are too
small). It does *not* model another kernel: attention reads both through the same block tables, so a step over
the same requests takes the same time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from sluice_worker.block_pool import BlockPool, block_digest, root_digest
from sluice_worker.request import Request

KVMode = Literal["dense", "paged"]


class KVAllocation(Protocol):
    """Gives a request its first blocks."""

    pool: BlockPool

    def place(self, request: Request, running: Sequence[Request]) -> bool:
        """Give blocks for all known tokens to the head of the queue; `False`, and nothing done, without room.

        `running` are those that hold blocks. Sets `block_ids`, `num_computed` and `num_cached_tokens`.
        Whoever runs alone always finds room.
        """
        ...

    def cached_tokens(self, request: Request) -> int:
        """Tokens of a request that would not have to be computed, were it placed now."""
        ...

    def computed(self, request: Request, computed_before: int) -> None:
        """The keys and values of more tokens are there: those from `computed_before` to `num_computed`."""
        ...


class PagedAllocation:
    """Blocks for the tokens that are there, and the prefix cache."""

    def __init__(self, pool: BlockPool, *, enable_prefix_caching: bool = True) -> None:
        self.pool = pool
        self._enable_prefix_caching = enable_prefix_caching

    def place(self, request: Request, running: Sequence[Request]) -> bool:
        """See `KVAllocation`. Leaves a free block of growth for every running request."""
        hits = self._cached_blocks(request)
        missing = self.pool.blocks_for(len(request.tokens)) - len(hits)
        left = self.pool.num_free - self.pool.count_free(hits) - missing
        if left < len(running):
            return False
        self.pool.share(hits)
        request.block_ids = hits + self.pool.allocate(missing)
        request.num_computed = len(hits) * self.pool.block_size
        if request.num_cached_tokens is None:
            request.num_cached_tokens = request.num_computed
        return True

    def cached_tokens(self, request: Request) -> int:
        """See `KVAllocation`."""
        return len(self._cached_blocks(request)) * self.pool.block_size

    def computed(self, request: Request, computed_before: int) -> None:
        """See `KVAllocation`. Makes the blocks findable that were filled to the end."""
        if not self._enable_prefix_caching:
            return
        block_size = self.pool.block_size
        full = request.num_computed // block_size
        for position in range(computed_before // block_size, full):
            self.pool.register(request.block_ids[position], self._digests(request, full)[position])

    def _cached_blocks(self, request: Request) -> list[int]:
        """Blocks of the longest cached prefix that leaves to compute all that the request needs computed.

        That is at least its last token, and every prompt token whose logits are still wanted.
        """
        if not self._enable_prefix_caching:
            return []
        next_scored = request.next_scored
        unneeded = len(request.tokens) - 1 if next_scored is None else next_scored
        count = unneeded // self.pool.block_size
        return self.pool.match(self._digests(request, count)[:count])

    def _digests(self, request: Request, count: int) -> list[bytes]:
        """Digests of at least the first `count` blocks, all of which are full."""
        digests = request.block_digests
        block_size = self.pool.block_size
        while len(digests) < count:
            parent = digests[-1] if digests else root_digest(request.cache_salt)
            start = len(digests) * block_size
            digests.append(block_digest(parent, request.tokens[start : start + block_size]))
        return digests


class DenseAllocation:
    """One run of blocks a request, for all that it may become."""

    def __init__(self, pool: BlockPool, *, max_model_len: int) -> None:
        """`max_model_len` tokens are the longest a request can become; they fit into the pool."""
        self.pool = pool
        self._max_model_len = max_model_len

    def place(self, request: Request, running: Sequence[Request]) -> bool:
        """See `KVAllocation`. Takes the first gap that is wide enough."""
        longest = min(len(request.prompt_token_ids) + request.params.max_tokens, self._max_model_len)
        count = self.pool.blocks_for(longest)
        start = self._first_gap(count, running)
        if start is None:
            return False
        request.block_ids = list(range(start, start + count))
        self.pool.share(request.block_ids)  # that is: hold these, instead of any that are free
        request.num_cached_tokens = 0
        return True

    def cached_tokens(self, request: Request) -> int:
        """See `KVAllocation`. Nothing is shared."""
        return 0

    def computed(self, request: Request, computed_before: int) -> None:
        """See `KVAllocation`. Nothing is shared."""

    def _first_gap(self, count: int, running: Sequence[Request]) -> int | None:
        """Where `count` free blocks begin; `None` when no gap between the held runs is that wide."""
        start = 0
        for first, end in sorted((r.block_ids[0], r.block_ids[-1] + 1) for r in running):
            if first - start >= count:
                return start
            start = end
        return start if self.pool.num_blocks - start >= count else None


def make_allocation(
    mode: KVMode, pool: BlockPool, *, max_model_len: int, enable_prefix_caching: bool
) -> KVAllocation:
    """The allocation of a mode. `dense` shares no prefixes, whatever is asked."""
    match mode:
        case "paged":
            return PagedAllocation(pool, enable_prefix_caching=enable_prefix_caching)
        case "dense":
            return DenseAllocation(pool, max_model_len=max_model_len)
