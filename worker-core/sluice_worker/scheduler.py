"""Who computes how many tokens in the next step.

First come, first served, and no phases: each entry of a step is "compute the next n tokens of this request".

1. Running requests with one token to go (decode) come first: a long prompt never stalls the others.
2. Running requests with more to go (prefill, or recompute after preemption) share the rest of the token
   budget, the oldest first, in chunks.
3. Waiting requests are admitted while there is budget, room in the batch, and enough free blocks for all
   their known tokens *plus a margin of one block of growth for every running request*.

When a running request needs a block and none is free, the newest running request is preempted: its blocks are
freed, it waits at the front, and is recomputed later (mostly from the prefix cache).

Why this cannot deadlock or starve: `running` is in order of arrival and older than anything `waiting`, the
victim is always the newest, and a request that cannot fit into all blocks alone is refused before it gets
here. So the oldest request always advances, finishes, and makes the next one the oldest.

This module knows no tensors, no clock and no text. It decides; the engine computes and then calls `advance`.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import NamedTuple

from sluice_worker.block_pool import BlockPool, block_digest, root_digest
from sluice_worker.errors import IntegrityError
from sluice_worker.request import Request


class ScheduledTokens(NamedTuple):
    """Compute tokens `[request.num_computed, request.num_computed + num_tokens)`."""

    request: Request
    num_tokens: int

    @property
    def samples(self) -> bool:
        """Whether this entry reaches the end of what is known, so that a next token is sampled.

        Meaningful until `advance`.
        """
        return self.request.num_computed + self.num_tokens == len(self.request.tokens)


class _Step:
    """A step being put together: tokens per request, and the budget that is left."""

    __slots__ = ("budget", "tokens")

    def __init__(self, budget: int) -> None:
        self.tokens: dict[Request, int] = {}
        self.budget = budget

    def add(self, request: Request, num_tokens: int) -> None:
        self.tokens[request] = num_tokens
        self.budget -= num_tokens


class Scheduler:
    """Keeps the queue, the running batch and the blocks of its requests."""

    def __init__(
        self,
        pool: BlockPool,
        *,
        max_num_seqs: int,
        max_num_batched_tokens: int,
        max_chunk: int,
        enable_prefix_caching: bool = True,
    ) -> None:
        self._pool = pool
        self._max_num_seqs = max_num_seqs
        self._max_num_batched_tokens = max_num_batched_tokens
        self._max_chunk = max_chunk
        self._enable_prefix_caching = enable_prefix_caching
        self._requests: dict[str, Request] = {}
        self._waiting: deque[Request] = deque()
        self._running: list[Request] = []
        self.num_preemptions = 0
        """Since the start."""

    @property
    def num_waiting(self) -> int:
        """Requests that hold no blocks yet, or no longer."""
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        """Requests in the batch."""
        return len(self._running)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._requests

    def add(self, request: Request) -> None:
        """Queue a request. The caller has made sure that it fits into all blocks, and that its id is new."""
        self._requests[request.request_id] = request
        self._waiting.append(request)

    def abort(self, request_id: str) -> bool:
        """Forget a request and free its blocks, at once. `False` when it is not here (any more)."""
        request = self._requests.get(request_id)
        if request is None:
            return False
        if request.block_ids:
            self.finish(request)
        else:
            del self._requests[request_id]
            self._waiting.remove(request)
        return True

    def finish(self, request: Request) -> None:
        """Take a running request out of the batch and free its blocks."""
        del self._requests[request.request_id]
        self._running.remove(request)
        self._release(request)

    def schedule(self) -> list[ScheduledTokens]:
        """Put the next step together. Empty only when there are no requests.

        Every entry has at least one token and the blocks to write it to. Call `advance` when it is computed.
        """
        step = _Step(self._max_num_batched_tokens)
        decoding = [request for request in self._running if request.num_uncomputed == 1]
        prefilling = [request for request in self._running if request.num_uncomputed > 1]
        for request in decoding:
            self._continue(request, step)
        for request in prefilling:
            self._continue(request, step)
        self._admit(step)
        return [ScheduledTokens(request, count) for request, count in step.tokens.items()]

    def advance(self, step: list[ScheduledTokens]) -> None:
        """Note that a step was computed: only now may the blocks it filled be shared."""
        for request, num_tokens in step:
            computed_before = request.num_computed
            request.num_computed += num_tokens
            self._register(request, computed_before)

    def check_integrity(self) -> None:
        """Raise `IntegrityError` unless requests and blocks agree. O(blocks); for tests and debugging."""
        self._pool.check_integrity()
        held = Counter(index for request in self._running for index in request.block_ids)
        for index in range(self._pool.num_blocks):
            if self._pool.references(index) != held[index]:
                raise IntegrityError(f"Block {index} is referenced by nobody who runs, or by too few.")
        if any(request.block_ids or request.num_computed for request in self._waiting):
            raise IntegrityError("A waiting request holds blocks.")
        for request in self._running:
            room = len(request.block_ids) * self._pool.block_size
            if not 0 <= request.num_computed <= min(len(request.tokens), room):
                raise IntegrityError(f"{request!r} in {room} slots.")
        if self._requests.keys() != {r.request_id for r in (*self._running, *self._waiting)}:
            raise IntegrityError("A request is neither running nor waiting, or is unknown.")

    def _continue(self, request: Request, step: _Step) -> None:
        """Give a running request its share of the step, unless it was or must be preempted."""
        num_tokens = min(request.num_uncomputed, self._max_chunk, step.budget)
        if request.block_ids and num_tokens and self._grow(request, request.num_computed + num_tokens):
            step.add(request, num_tokens)

    def _grow(self, request: Request, num_tokens: int) -> bool:
        """Extend the blocks of a running request to hold `num_tokens`. `False`: it was preempted itself.

        A victim is never part of the step yet: only decodes grow (the rest got all blocks at admission), and
        they come oldest first.
        """
        missing = self._pool.blocks_for(num_tokens) - len(request.block_ids)
        if missing <= 0:
            return True
        while self._pool.num_free < missing:
            victim = self._running[-1]
            self._preempt(victim)
            if victim is request:
                return False
        request.block_ids += self._pool.allocate(missing)
        return True

    def _preempt(self, victim: Request) -> None:
        self._running.pop()
        self._release(victim)
        victim.num_computed = 0
        self._waiting.appendleft(victim)  # it is older than all that wait
        self.num_preemptions += 1

    def _release(self, request: Request) -> None:
        self._pool.free(request.block_ids)
        request.block_ids = []

    def _admit(self, step: _Step) -> None:
        while self._waiting and step.budget and len(self._running) < self._max_num_seqs:
            request = self._waiting[0]
            hits = self._cached_blocks(request)
            missing = self._pool.blocks_for(len(request.tokens)) - len(hits)
            left = self._pool.num_free - self._pool.count_free(hits) - missing
            if left < len(self._running):
                return
            self._pool.share(hits)
            request.block_ids = hits + self._pool.allocate(missing)
            request.num_computed = len(hits) * self._pool.block_size
            if request.num_cached_tokens is None:
                request.num_cached_tokens = request.num_computed
            self._running.append(self._waiting.popleft())
            step.add(request, min(request.num_uncomputed, self._max_chunk, step.budget))

    def _cached_blocks(self, request: Request) -> list[int]:
        """Blocks of the longest cached prefix that leaves to compute all that the request needs computed.

        That is at least its last token, and every prompt token whose logits are still wanted.
        """
        if not self._enable_prefix_caching:
            return []
        next_scored = request.next_scored
        unneeded = len(request.tokens) - 1 if next_scored is None else next_scored
        count = unneeded // self._pool.block_size
        return self._pool.match(self._digests(request, count)[:count])

    def _register(self, request: Request, computed_before: int) -> None:
        """Make the blocks findable that the last step filled to the end."""
        if not self._enable_prefix_caching:
            return
        block_size = self._pool.block_size
        full = request.num_computed // block_size
        for position in range(computed_before // block_size, full):
            self._pool.register(request.block_ids[position], self._digests(request, full)[position])

    def _digests(self, request: Request, count: int) -> list[bytes]:
        """Digests of at least the first `count` blocks, all of which are full."""
        digests = request.block_digests
        block_size = self._pool.block_size
        while len(digests) < count:
            parent = digests[-1] if digests else root_digest(request.cache_salt)
            start = len(digests) * block_size
            digests.append(block_digest(parent, request.tokens[start : start + block_size]))
        return digests
