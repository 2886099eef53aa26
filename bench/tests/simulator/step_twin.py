"""An engine simulated one step and one block at a time: slow, and plain enough to be believed."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from sluice_bench.simulator.engine_shape import EngineShape

Block = tuple[object, int]


@dataclass(eq=False)
class TwinJob:
    """Times are `None` until they are reached."""

    at: float
    stream: int
    shared: int
    prompt: int
    output: int
    first_at: float | None = None
    ended_at: float | None = None
    generated: int = 0
    computed: int = 0
    hit: int = 0
    total: int = 0
    tokens: int = 0
    """In the KV cache, reserved ones included."""
    own: int = 0
    """Blocks that only it has."""
    users_of: set[Block] = field(default_factory=set)
    decoding: bool = False


class StepTwin:
    """Runs all jobs to their ends."""

    def __init__(self, shape: EngineShape, jobs: list[TwinJob]) -> None:
        self.shape = shape
        self.block = shape.block_tokens
        self.capacity = shape.kv_blocks
        self.coming = sorted(jobs, key=lambda job: job.at)
        self.waiting: list[TwinJob] = []
        self.running: list[TwinJob] = []
        self.decode_order: list[TwinJob] = []
        self.streams: dict[int, int] = {}
        """Cached blocks of each stream."""
        self.users: dict[int, int] = {}
        self.pinned: dict[int, int] = {}
        self.idle: OrderedDict[Block, None] = OrderedDict()
        self.preemptions = 0
        self.rest = 0

    def blocks(self, tokens: int) -> int:
        return -(-tokens // self.block)

    def held(self) -> int:
        own = sum(job.own for job in self.running)
        return own + sum(self.pinned.values())

    def evict(self) -> None:
        while self.held() + len(self.idle) > self.capacity:
            (key, _), _ = self.idle.popitem(last=False)
            if isinstance(key, int):
                self.streams[key] -= 1

    def growth(self) -> int:
        """Blocks that the next step's tokens need."""
        return sum(job.tokens % self.block == 0 for job in self.decode_order)

    def join(self, job: TwinJob) -> bool:
        total = job.prompt + job.generated
        hit = 0
        if job.shared:
            hit = min(self.streams.get(job.stream, 0), min(job.shared, total - 1) // self.block)
        own = self.blocks(total) - hit
        woken = max(0, hit - self.pinned.get(job.stream, 0)) if job.shared else 0
        if self.held() + self.growth() + own + woken > self.capacity:
            return False
        job.hit, job.total, job.computed = hit * self.block, total, hit * self.block
        job.own, job.tokens = own, total
        if job.shared:
            self.streams.setdefault(job.stream, 0)
            self.pin(job.stream, hit)
            self.users[job.stream] = self.users.get(job.stream, 0) + 1
        self.running.append(job)
        self.evict()
        return True

    def pin(self, stream: int, upto: int) -> None:
        for index in range(self.pinned.get(stream, 0), upto):
            self.idle.pop((stream, index), None)
        self.pinned[stream] = max(self.pinned.get(stream, 0), upto)

    def leave(self, job: TwinJob, *, keep: bool) -> None:
        self.running.remove(job)
        full = job.tokens // self.block
        if keep and job.shared == job.prompt and job.shared:
            if full > self.streams[job.stream]:
                self.streams[job.stream] = full
                self.pin(job.stream, full)
        elif keep:
            self.rest += 1
            for index in reversed(range(full - job.shared // self.block)):
                self.idle[(f"rest-{self.rest}", index)] = None
        job.own = 0
        if job.shared:
            self.users[job.stream] -= 1
            if not self.users[job.stream]:
                self.pinned[job.stream] = 0
                for index in reversed(range(self.streams[job.stream])):
                    self.idle[(job.stream, index)] = None
                    self.idle.move_to_end((job.stream, index))
        if job in self.decode_order:
            self.decode_order.remove(job)
        job.decoding = False

    def preempt(self) -> None:
        job = self.running[-1]
        self.leave(job, keep=False)
        self.preemptions += 1
        self.waiting.insert(0, job)

    def run(self) -> None:
        now = 0.0
        while self.coming or self.waiting or self.running:
            if not self.waiting and not self.running:
                now = max(now, self.coming[0].at)
            while self.coming and self.coming[0].at <= now:
                self.waiting.append(self.coming.pop(0))
            now += self.one_step(now)

    def one_step(self, now: float) -> float:
        while self.decode_order and self.held() + self.growth() > self.capacity:
            self.preempt()
        decoding = list(self.decode_order)
        left, parts = self.shape.chunk_tokens - len(decoding), []
        for job in self.running:
            if not job.decoding and left:
                parts.append((job, min(left, job.total - job.computed)))
                left -= parts[-1][1]
        while left and self.waiting and len(self.running) < self.shape.max_running:
            job = self.waiting[0]
            if not self.join(job):
                break
            self.waiting.pop(0)
            parts.append((job, min(left, job.total - job.computed)))
            left -= parts[-1][1]
        duration = self.shape.step_duration_s(len(decoding), sum(tokens for _, tokens in parts))
        self.take(decoding, parts, now + duration)
        return duration

    def take(self, decoding: list[TwinJob], parts: list[tuple[TwinJob, int]], end: float) -> None:
        for job in decoding:
            job.own += job.tokens % self.block == 0
            job.tokens += 1
            job.generated += 1
        self.evict()
        for job, tokens in parts:
            job.computed += tokens
            if job.computed == job.total:
                self.prefilled(job, end)
        for job in list(self.decode_order):
            if job.generated == job.output:
                job.ended_at = end
                self.leave(job, keep=True)

    def prefilled(self, job: TwinJob, end: float) -> None:
        if job.shared:
            gain = job.shared // self.block - self.streams[job.stream]
            if gain > 0:
                self.streams[job.stream] += gain
                self.pin(job.stream, self.streams[job.stream])
                job.own -= gain
        job.generated += 1
        job.decoding = True
        self.decode_order.append(job)
        if job.first_at is None:
            job.first_at = end
