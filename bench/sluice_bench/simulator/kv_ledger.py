"""The KV cache of one engine: which blocks live requests hold, and what is cached beside them.

Invariants: blocks held + blocks cached <= capacity after `settle`; a block belongs to one request, to one
stream, or to nobody; when no request is left, nothing is held.

A *stream* is a text of which prompts take beginnings of different lengths. Its cached part is one number of
blocks, because eviction takes from the end: vLLM frees a request's blocks last block first, so the least
recently used stream loses its tail. While it has users, what they began with is held and only the rest can
be evicted; it is held until the last of them has gone. What a request does not share stays cached behind it
too, is never found again, and takes its turn in being evicted. Blocks that two requests compute at the same
time are held twice.

Requests grow by a token a step together. Instead of touching each one at each step, the ledger keeps how many
have the same remainder of tokens by block size, from which the blocks after any number of steps follow.

What is not modelled: a preempted request's blocks are dropped instead of staying cached for its return.
"""

from __future__ import annotations

from collections import OrderedDict

from sluice_bench.simulator.job import Job


class Stream:
    """What is cached of one text. Key -1: of a text that nobody will ask for again."""

    __slots__ = ("blocks", "held", "key", "users")

    def __init__(self, key: int) -> None:
        self.key = key
        self.blocks = 0
        self.held = 0
        """Of its blocks, from the first on: they cannot be evicted."""
        self.users = 0


class KvLedger:
    """Counts blocks. `step` is the engine's number of steps so far."""

    __slots__ = (
        "_block",
        "_by_remainder",
        "_growing",
        "_idle",
        "_pinned",
        "_static",
        "_streams",
        "cached",
        "capacity",
    )

    def __init__(self, capacity: int, block_tokens: int) -> None:
        self.capacity = capacity
        self.cached = 0
        """Blocks that hold something and that nobody uses."""
        self._block = block_tokens
        self._streams: dict[int, Stream] = {}
        self._idle: OrderedDict[Stream, None] = OrderedDict()
        """With something to evict, least recently used first."""
        self._pinned = 0
        """Blocks of streams that are held."""
        self._static = 0
        """Own blocks of requests that do not grow, and the constant part of those that do."""
        self._growing = 0
        self._by_remainder = [0] * block_tokens

    def held(self, step: int) -> int:
        """Blocks of live requests at a step, those of streams included."""
        total, block = self._static + self._pinned, self._block
        if self._growing:
            upper = step + block - 1
            for remainder, count in enumerate(self._by_remainder):
                if count:
                    total += count * ((upper + remainder) // block)
        return total

    def _at_most(self, step: int) -> int:
        """No less than `held`, in less time."""
        return self._static + self._pinned + self._growing * ((step + 2 * self._block - 2) // self._block)

    def cached_tokens(self, job: Job) -> int:
        """Tokens of the job's prompt that need no computing; its last token always does."""
        stream = self._streams.get(job.stream) if job.shared else None
        if stream is None:
            return 0
        limit = min(job.shared, job.prompt + job.generated - 1) // self._block
        return min(stream.blocks, limit) * self._block

    def stream_tokens(self, key: int) -> int:
        """Tokens that are cached of a stream."""
        stream = self._streams.get(key)
        return 0 if stream is None else stream.blocks * self._block

    def hold(self, job: Job, step: int) -> bool:
        """Reserve the blocks of a whole prompt; False, and nothing is changed, when there is no room.

        A step's growth of all others still fits afterwards.
        """
        tokens = job.prompt + job.generated
        hit = self.cached_tokens(job)
        lent = hit // self._block
        own = -(-tokens // self._block) - lent
        stream = self._streams.get(job.stream) if job.shared else None
        needed = own if stream is None else own + max(0, lent - stream.held)
        if self._at_most(step + 1) + needed > self.capacity and self.held(step + 1) + needed > self.capacity:
            return False
        job.hit, job.lent = hit, lent
        job.remaining = tokens - hit
        self._static += own
        if job.shared:
            self._pin(job, stream)
        return True

    def _pin(self, job: Job, stream: Stream | None) -> None:
        if stream is None:
            stream = self._streams[job.stream] = Stream(job.stream)
        stream.users += 1
        job.entry = stream
        more = job.lent - stream.held
        if more > 0:
            stream.held += more
            self._pinned += more
            self.cached -= more
            if stream.held == stream.blocks:
                del self._idle[stream]

    def publish(self, job: Job, step: int) -> None:
        """Its prompt is computed: what is shared of it can be found now, and it grows from here on."""
        tokens = job.prompt + job.generated
        stream = job.entry
        if stream is not None and (gain := job.shared // self._block - stream.blocks) > 0:
            self._give(job, stream, gain)
        job.offset = tokens - step
        rounds, remainder = divmod(job.offset, self._block)
        self._static += rounds + tokens // -self._block  # the reservation ends
        self._by_remainder[remainder] += 1
        self._growing += 1

    def _give(self, job: Job, stream: Stream, blocks: int) -> None:
        """Blocks of the job become its stream's."""
        self._extend(stream, stream.blocks + blocks)
        job.lent += blocks
        self._static -= blocks

    def _extend(self, stream: Stream, blocks: int) -> None:
        """It has so many now, all of them held."""
        self._pinned += blocks - stream.held
        if stream.blocks > stream.held:
            self.cached -= stream.blocks - stream.held
            del self._idle[stream]
        stream.blocks = stream.held = blocks

    def release(self, job: Job, step: int, *, decoding: bool, keep: bool) -> None:
        """Give back what it holds; with `keep` its blocks stay cached until their room is needed."""
        if decoding:
            tokens = step + job.offset
            rounds, remainder = divmod(job.offset, self._block)
            self._by_remainder[remainder] -= 1
            self._growing -= 1
            self._static -= rounds - job.lent
        else:
            tokens = job.prompt + job.generated
            self._static -= -(-tokens // self._block) - job.lent
        stream, job.entry = job.entry, None
        if keep:
            self._keep(job, stream, tokens // self._block)
        if stream is not None:
            self._unpin(stream)
        job.lent = 0

    def _keep(self, job: Job, stream: Stream | None, full: int) -> None:
        """Cache its full blocks: behind the stream if the answer goes on with it, else for nobody."""
        own = full - job.shared // self._block
        if stream is not None and job.shared == job.prompt:
            if full > stream.blocks:
                self._extend(stream, full)
        elif own > 0:
            rest = Stream(-1)
            rest.blocks = own
            self._idle[rest] = None
            self.cached += own

    def _unpin(self, stream: Stream) -> None:
        stream.users -= 1
        if stream.users:
            return
        self._pinned -= stream.held
        self.cached += stream.held
        stream.held = 0
        if stream.blocks:
            self._idle[stream] = None
            self._idle.move_to_end(stream)
        else:
            del self._streams[stream.key]

    def most_steps(self, step: int, steps: int) -> int:
        """How many of the next steps all that grow have room for, with all that is only cached evicted."""
        rounds = (step + steps + 2 * self._block - 2) // self._block  # as in `_at_most`, without the call
        if self._static + self._pinned + self._growing * rounds <= self.capacity:
            return steps
        if self.held(step + steps) <= self.capacity:
            return steps
        low, high = 0, steps
        while high - low > 1:
            middle = (low + high) // 2
            if self.held(step + middle) <= self.capacity:
                low = middle
            else:
                high = middle
        return low

    def settle(self, step: int) -> None:
        """Evict what is in the way of live requests."""
        rounds = (step + 2 * self._block - 2) // self._block  # as in `_at_most`, without the call
        if self._static + self._pinned + self._growing * rounds + self.cached <= self.capacity:
            return
        excess = self.held(step) + self.cached - self.capacity
        idle = self._idle
        while excess > 0:
            stream = next(iter(idle))
            taken = min(stream.blocks - stream.held, excess)
            stream.blocks -= taken
            self.cached -= taken
            excess -= taken
            if stream.blocks == stream.held:
                del idle[stream]
                if stream.key >= 0 and not stream.users:
                    del self._streams[stream.key]
