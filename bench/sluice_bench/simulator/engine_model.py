"""An engine in simulated time: continuous batching with chunked prefill, preemption and a prefix cache.

It takes the same decisions, step by step, as an engine that is simulated step by step (the twin in its
tests), but steps that are all alike are taken at once: until the next answer ends, a prompt's last chunk
begins, the KV cache is full, or a request arrives. So its cost is by requests and not by tokens.

A step decodes one token of every sequence whose prompt is computed, and spends what is left of
`chunk_tokens` on prompts, first come first served. A request joins the batch when the step has tokens left
and the KV cache has room for all of its prompt; what its stream has cached is looked up at that moment. When
the next step has no room for its new tokens, the request that joined last is put back to the head of the
queue and computed anew, as vLLM does.
"""

from __future__ import annotations

import math
from collections import deque
from heapq import heappop, heappush

from sluice_bench.simulator.engine_shape import EngineShape
from sluice_bench.simulator.events import Events
from sluice_bench.simulator.job import DECODE, GONE, PREFILL, WAITING, Job
from sluice_bench.simulator.kv_ledger import KvLedger

_ALMOST = 1e-9
"""Share of a step by which a time may miss a step's end and still be it."""


class EngineModel:
    """One replica."""

    def __init__(self, shape: EngineShape, events: Events) -> None:
        self.shape = shape
        self._prefill_s = 1 / shape.prefill_tokens_per_s
        self.kv = KvLedger(shape.kv_blocks, shape.block_tokens)
        self.alive = True
        self.step = 0
        """Steps so far: the clock of all that decodes."""
        self.waiting: deque[Job] = deque()
        self.queued_tokens = 0
        """Of those that wait, without what was cached when they came."""
        self.prefilled_tokens = 0
        self.recomputed_tokens = 0
        """Prefilled before, and again after a preemption."""
        self.queried_tokens = 0
        self.hit_tokens = 0
        self.preemptions = 0
        self.busy_s = 0.0
        self._events = events
        self._running: dict[Job, None] = {}
        """In the order in which they joined the batch."""
        self._prefilling: deque[Job] = deque()
        self._decoding = 0
        self._ends: list[tuple[int, int, Job]] = []
        self._order = 0
        self._slowness = 1.0
        self._frozen_until = 0.0
        # The steps that are being taken: none when `_steps` is 0.
        self._steps = 0
        self._step_s = 0.0
        self._started = 0.0
        self._parts: list[tuple[Job, int]] = []
        self._plan = 0
        self._open = False
        """A newcomer could join before these steps are over."""
        self._settling = False

    @property
    def running(self) -> int:
        """Requests in the batch."""
        return len(self._running)

    @property
    def uncomputed_tokens(self) -> int:
        """Prefill that a newcomer would have to wait for."""
        return self.queued_tokens + sum(job.remaining for job in self._prefilling)

    @property
    def kv_used_ratio(self) -> float:
        """Share of the KV cache that live requests hold."""
        return self.kv.held(self.step) / self.kv.capacity

    # What the outside does

    def submit(self, job: Job) -> None:
        """Take a request. Raises `ValueError` when it could never fit, `RuntimeError` on a dead engine."""
        if not self.alive:
            raise RuntimeError("nothing can be sent to a dead engine")
        if job.prompt + job.output > self.kv.capacity * self.shape.block_tokens:
            raise ValueError("the request is longer than the engine's whole KV cache")
        job.state = WAITING
        job.uncached_estimate = job.prompt - self.kv.cached_tokens(job)
        self.queued_tokens += job.uncached_estimate
        self.waiting.append(job)
        if self._settling:
            return
        if self._steps == 0:
            self._begin()
        elif self._open:
            self._cut()

    def abort(self, job: Job) -> None:
        """The client has left: free what the request holds. Nothing more is said of it."""
        if job.state == WAITING:
            self.waiting.remove(job)
            self.queued_tokens -= job.uncached_estimate
        elif job.state != GONE:
            self._cut()
            self._leave(job, keep=True)
            self._parts = [part for part in self._parts if part[0] is not job]
        job.state = GONE

    def kill(self) -> None:
        """Die, with all requests and all that was cached."""
        jobs = [*self._running, *self.waiting]
        self.alive = False
        self._plan += 1
        self._steps = 0
        self._running.clear()
        self._prefilling.clear()
        self.waiting.clear()
        self._ends.clear()
        self._parts = []
        self._decoding = self.queued_tokens = 0
        self.kv = KvLedger(self.kv.capacity, self.shape.block_tokens)
        for job in jobs:
            job.state, job.entry = GONE, None
            job.broken(self._events.now)

    def revive(self) -> None:
        """Be there again, empty."""
        self.alive = True

    def freeze(self, until: float) -> None:
        """Take no further step before that time."""
        self._frozen_until = until
        self._cut()

    def slow_down(self, factor: float) -> None:
        """Have every step take that many times as long, from the next one on."""
        self._slowness = factor
        self._cut()

    # Steps

    def _cut(self) -> None:
        """End the present steps with the one that is being taken."""
        if self._steps <= 1:
            return
        elapsed = (self._events.now - self._started) / self._step_s
        steps = max(0, math.ceil(elapsed - _ALMOST))
        if steps < self._steps:
            self._steps, self._open = steps, False
            self._schedule()

    def _schedule(self) -> None:
        self._plan += 1
        self._events.at(self._started + self._steps * self._step_s, self._end, self._plan)

    def _begin(self) -> None:
        """Decide on the next steps; none when there is nothing to do."""
        kv, shape, step = self.kv, self.shape, self.step
        while self._decoding and kv.most_steps(step, 1) < 1:
            self._preempt()
        prefill = self._compose() if self.waiting or self._prefilling else 0
        decoding = self._decoding
        if not prefill:
            self._parts = []
            if not decoding:
                self._steps = 0
                return
            steps = self._next_end() - step
        else:
            first = self._parts[0][0].remaining
            steps = (first - 1) // prefill if first > prefill else 1
            if decoding and steps > 1:
                steps = min(steps, self._next_end() - step)
        if decoding and steps > 1:
            steps = kv.most_steps(step, steps)
        self._steps = steps
        # `EngineShape.step_duration_s`, without the call.
        duration_s = shape.step_s + shape.sequence_s * decoding + prefill * self._prefill_s
        self._step_s = duration_s = duration_s * self._slowness
        now = self._events.now
        self._started = started = now if now > self._frozen_until else self._frozen_until
        self._open = not prefill and not self.waiting and len(self._running) < shape.max_running
        self._plan += 1
        self._events.at(started + steps * duration_s, self._end, self._plan)

    def _compose(self) -> int:
        """Deal the step's tokens out to prompts; how many they are."""
        room = self.shape.chunk_tokens - self._decoding
        left = room
        self._parts = parts = []
        for job in self._prefilling:
            tokens = job.remaining
            if tokens >= left:
                parts.append((job, left))
                return room
            parts.append((job, tokens))
            left -= tokens
        waiting, most = self.waiting, self.shape.max_running
        while left and waiting and len(self._running) < most:
            job = waiting[0]
            if not self.kv.hold(job, self.step):
                break
            self._join(job)
            tokens = job.remaining if job.remaining < left else left
            parts.append((job, tokens))
            left -= tokens
        return room - left

    def _join(self, job: Job) -> None:
        self.waiting.popleft()
        self.queued_tokens -= job.uncached_estimate
        self.kv.settle(self.step)
        self.queried_tokens += job.prompt
        self.hit_tokens += min(job.hit, job.prompt)
        if job.answered or job.recomputed:
            self.recomputed_tokens += job.remaining
        job.state = PREFILL
        self._running[job] = None
        self._prefilling.append(job)

    def _next_end(self) -> int:
        """The step with which the next answer ends. There is something that decodes."""
        ends = self._ends
        while True:
            step, _, job = ends[0]
            if job.finish_step == step and job.state == DECODE:
                return step
            heappop(ends)

    def _end(self, plan: int) -> None:
        """The steps are over."""
        if plan != self._plan:
            return
        steps, now = self._steps, self._events.now
        self._settling = True
        self.step += steps
        self.busy_s += steps * self._step_s
        self.kv.settle(self.step)
        if steps and self._parts:
            for job, tokens in self._parts:
                job.remaining -= tokens * steps
                self.prefilled_tokens += tokens * steps
                if not job.remaining:
                    self._prefilled(job, now)
        ends = self._ends
        if ends and ends[0][0] <= self.step:
            self._finish_due(now)
        self._settling = False
        self._begin()

    def _prefilled(self, job: Job, now: float) -> None:
        """Its prompt is computed, which gives its next token."""
        self._prefilling.popleft()
        self.kv.publish(job, self.step)
        job.state = DECODE
        self._decoding += 1
        job.generated += 1
        job.finish_step = self.step + job.output - job.generated
        self._order += 1
        heappush(self._ends, (job.finish_step, self._order, job))
        if not job.answered:
            job.answered = True
            job.first_token(now)

    def _finish_due(self, now: float) -> None:
        ends = self._ends
        while ends and ends[0][0] <= self.step:
            step, _, job = heappop(ends)
            if job.finish_step == step and job.state == DECODE:
                self._leave(job, keep=True)
                job.generated = job.output
                job.finished(now)

    def _leave(self, job: Job, *, keep: bool) -> None:
        """Out of the batch."""
        decoding = job.state == DECODE
        del self._running[job]
        if decoding:
            self._decoding -= 1
            job.generated = job.output - (job.finish_step - self.step)
        else:
            self._prefilling.remove(job)
            keep = False
        self.kv.release(job, self.step, decoding=decoding, keep=keep)
        job.state = GONE

    def _preempt(self) -> None:
        """Put the request that joined last back to the head of the queue."""
        job = next(reversed(self._running))
        self._leave(job, keep=False)
        self.preemptions += 1
        job.recomputed += 1
        job.state = WAITING
        job.uncached_estimate = job.prompt + job.generated - self.kv.cached_tokens(job)
        self.queued_tokens += job.uncached_estimate
        self.waiting.appendleft(job)
