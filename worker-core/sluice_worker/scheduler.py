"""Who computes how many tokens in the next step.

First come, first served, and no phases: each entry of a step is "compute the next n tokens of this request".

1. Running requests with one token to go (decode) come first: a long prompt never stalls the others.
2. Running requests with more to go (prefill, or recompute after preemption) share the rest of the token
   budget, the oldest first, in chunks; beside decodes a `Pacer` may make that rest smaller.
3. Waiting requests are admitted while the batching policy lets them join, and there is budget, room in the
   batch, and enough free blocks: paged, for all their known tokens *plus a margin of one block of growth for
   every running request*; dense, for all they may become.

`batching` says who may join when; with `tick_s`, newcomers are admitted at most that often, and those who run
go on meanwhile. A request that asks to run `alone` keeps its place in the queue, waits for the batch ahead of
it to finish, and nobody joins it.

When a running request needs a block and none is free, the newest running request is preempted: its blocks are
freed, it waits at the front, and is recomputed later (mostly from the prefix cache).

Why this cannot deadlock or starve: `running` is in order of arrival and older than anything `waiting`, the
victim is always the newest, and a request that cannot fit into all blocks alone is refused before it gets
here. So the oldest request always advances, finishes, and makes the next one the oldest. A dense allocation
never grows, so nothing is preempted. A policy only ever delays the head of the queue, and for as long as the
batch ahead runs and its own window lasts.

This module knows no tensors, no clock (it is told the time, in seconds on any monotonic clock) and no text.
It decides; the engine computes and then calls `advance`.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from typing import NamedTuple

from sluice_worker.batching import BatchingPolicy
from sluice_worker.errors import IntegrityError
from sluice_worker.kv_allocation import KVAllocation
from sluice_worker.pacing import Pacer
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
        allocation: KVAllocation,
        batching: BatchingPolicy,
        *,
        max_num_seqs: int,
        max_num_batched_tokens: int,
        max_chunk: int,
        tick_s: float = 0.0,
        pacer: Pacer | None = None,
    ) -> None:
        self._allocation = allocation
        self._pool = allocation.pool
        self._batching = batching
        self._max_num_seqs = max_num_seqs
        self._max_num_batched_tokens = max_num_batched_tokens
        self._max_chunk = max_chunk
        self._tick_s = tick_s
        self._pacer = pacer
        self._next_admission_s = -math.inf
        self._requests: dict[str, Request] = {}
        self._waiting: deque[Request] = deque()
        self._running: list[Request] = []
        self.num_preemptions = 0
        """Since the start."""
        self.waiting_uncached_tokens = 0
        """Tokens of waiting requests that no cached prefix covered when they began to wait."""

    @property
    def num_waiting(self) -> int:
        """Requests that hold no blocks yet, or no longer."""
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        """Requests in the batch."""
        return len(self._running)

    def tokens_reserved(self) -> int:
        """Tokens for which running requests hold blocks, whether they have them or not.

        A block that several share counts for each.
        """
        return sum(len(request.block_ids) for request in self._running) * self._pool.block_size

    def tokens_held(self) -> int:
        """Tokens of running requests whose keys and values are computed."""
        return sum(request.num_computed for request in self._running)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._requests

    def add(self, request: Request) -> None:
        """Queue a request. The caller has made sure that it fits into all blocks, and that its id is new."""
        self._requests[request.request_id] = request
        self._waiting.append(request)
        self._count_waiting(request)

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
            self.waiting_uncached_tokens -= request.num_uncached
            self._batching.leave(request)
        return True

    def finish(self, request: Request) -> None:
        """Take a running request out of the batch and free its blocks."""
        del self._requests[request.request_id]
        self._running.remove(request)
        self._release(request)
        self._batching.leave(request)

    def wait_s(self, now_s: float) -> float | None:
        """Seconds until `schedule` gives a step: 0 is now; `None` is not before another request is added."""
        due_s = max(self._batching.due_s(self._waiting, now_s), self._next_admission_s)
        if self._running:
            return 0.0
        return max(0.0, due_s - now_s) if self._waiting else None

    def schedule(self, now_s: float) -> list[ScheduledTokens]:
        """Put the next step together. Empty only when there are no requests, or nobody may join yet.

        Every entry has at least one token and the blocks to write it to. Call `advance` when it is computed.
        """
        step = _Step(self._max_num_batched_tokens)
        decoding = [request for request in self._running if request.num_uncomputed == 1]
        prefilling = [request for request in self._running if request.num_uncomputed > 1]
        for request in decoding:
            self._continue(request, step)
        if step.tokens and self._pacer is not None:
            step.budget = min(
                step.budget, self._pacer.allowance(len(step.tokens), self._num_prompts(prefilling))
            )
        for request in prefilling:
            self._continue(request, step)
        self._admit(step, now_s)
        return [ScheduledTokens(request, count) for request, count in step.tokens.items()]

    def advance(self, step: list[ScheduledTokens]) -> None:
        """Note that a step was computed: only now may the blocks it filled be shared."""
        for request, num_tokens in step:
            computed_before = request.num_computed
            request.num_computed += num_tokens
            self._allocation.computed(request, computed_before)

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
        if sum(request.num_uncached for request in self._waiting) != self.waiting_uncached_tokens:
            raise IntegrityError("The tokens that wait were miscounted.")
        if self._requests.keys() != {r.request_id for r in (*self._running, *self._waiting)}:
            raise IntegrityError("A request is neither running nor waiting, or is unknown.")

    def _count_waiting(self, request: Request) -> None:
        """Once: what becomes cached, or is evicted, while it waits does not change it."""
        request.num_uncached = len(request.tokens) - self._allocation.cached_tokens(request)
        self.waiting_uncached_tokens += request.num_uncached

    def _num_prompts(self, prefilling: list[Request]) -> int:
        """Prompts being computed, and waiting ones for which the batch has room."""
        return len(prefilling) + min(len(self._waiting), self._max_num_seqs - len(self._running))

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
        self._count_waiting(victim)
        self.num_preemptions += 1

    def _release(self, request: Request) -> None:
        self._pool.free(request.block_ids)
        request.block_ids = []

    def _admit(self, step: _Step, now_s: float) -> None:
        if now_s < self._next_admission_s:
            return
        self._batching.gather(self._waiting, now_s)
        while self._waiting and step.budget and self._has_room_for(self._waiting[0]):
            request = self._waiting[0]
            if not self._allocation.place(request, self._running):
                return
            self._running.append(self._waiting.popleft())
            self.waiting_uncached_tokens -= request.num_uncached
            step.add(request, min(request.num_uncomputed, self._max_chunk, step.budget))
            self._next_admission_s = now_s + self._tick_s

    def _has_room_for(self, request: Request) -> bool:
        """Whether the batch takes the head of the queue."""
        if not self._batching.admits(request):
            return False
        if self._running and (request.alone or self._running[0].alone):
            return False
        return len(self._running) < self._max_num_seqs
