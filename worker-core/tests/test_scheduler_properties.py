"""Scheduler, batching policies and block pool under random steps, with the cache's contents simulated.

Every slot of the simulated cache remembers *which prefix* was written to it. A step may only build on slots
that hold exactly the prefix of its request: this catches a block shared too early, reused while referenced,
or hit under the wrong salt, without computing anything.

The rules of a batch are checked against a twin that knows only who is alive, in which order they came, and
what time it is.
"""

from __future__ import annotations

import subprocess
import sys
from itertools import takewhile

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sluice_worker.batching import BatchingMode, make_batching
from sluice_worker.block_pool import BlockPool
from sluice_worker.kv_allocation import KVMode, make_allocation
from sluice_worker.outputs import EngineRequest
from sluice_worker.request import Request
from sluice_worker.sampling_params import SamplingParams
from sluice_worker.scheduler import ScheduledTokens, Scheduler

NUM_BLOCKS = 12
BLOCK_SIZE = 4
MAX_MODEL_LEN = NUM_BLOCKS * BLOCK_SIZE
MAX_NUM_SEQS = 5
TOKEN_BUDGET = 9
MAX_CHUNK = 6
STEP_S = 0.01


class SchedulerMachine(RuleBasedStateMachine):
    """Adds, aborts and steps at random, and plays the part of the engine and of its clock."""

    @initialize(
        mode=st.sampled_from(["none", "static", "dynamic", "continuous"]),
        kv=st.sampled_from(["paged", "dense"]),
        max_batch=st.integers(1, MAX_NUM_SEQS),
        wait_s=st.sampled_from([0.0, 0.05]),
        tick_s=st.sampled_from([0.0, 0.025]),
    )
    def build(self, mode: BatchingMode, kv: KVMode, max_batch: int, wait_s: float, tick_s: float) -> None:
        self.mode, self.kv, self.window_s, self.tick_s = mode, kv, wait_s, tick_s
        self.max_batch = 1 if mode == "none" else max_batch
        self.pool = BlockPool(NUM_BLOCKS, BLOCK_SIZE)
        self.scheduler = Scheduler(
            make_allocation(kv, self.pool, max_model_len=MAX_MODEL_LEN, enable_prefix_caching=True),
            make_batching(mode, max_batch=max_batch, wait_s=wait_s),
            max_num_seqs=MAX_NUM_SEQS,
            max_num_batched_tokens=TOKEN_BUDGET,
            max_chunk=MAX_CHUNK,
            tick_s=tick_s,
        )
        self.now_s = 100.0
        self.alive: dict[str, Request] = {}
        self.num_added = 0
        self.started: list[Request] = []
        self.last_start_s = -1.0
        self.batch: list[Request] = []
        self.free_since_s = self.now_s
        self.contents: dict[int, object] = {}

    @rule(
        prompt=st.lists(st.integers(0, 1), min_size=1, max_size=MAX_MODEL_LEN - 1),
        max_tokens=st.integers(1, 20),
        salt=st.sampled_from(["", "tenant"]),
        alone=st.sampled_from([False, False, False, True]),
    )
    def add(self, prompt: list[int], max_tokens: int, salt: str, alone: bool) -> None:
        self.num_added += 1
        asked = EngineRequest(
            request_id=f"r{self.num_added}",
            prompt_token_ids=prompt,
            params=SamplingParams(max_tokens=max_tokens),
            cache_salt=salt,
            alone=alone,
        )
        request = Request(asked, self.now_s)
        self.alive[request.request_id] = request
        self.scheduler.add(request)

    @precondition(lambda self: self.alive)
    @rule(choice=st.integers(0, 1000))
    def abort(self, choice: int) -> None:
        request = self.alive.pop(sorted(self.alive)[choice % len(self.alive)])
        assert self.scheduler.abort(request.request_id)
        assert not request.block_ids
        assert not self.scheduler.abort(request.request_id)

    @rule(count=st.integers(1, 12))
    def steps(self, count: int) -> None:
        for _ in range(count):
            self.step()

    @rule(seconds=st.sampled_from([0.001, 0.03, 1.0]))
    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds

    @precondition(lambda self: self.alive)
    @rule()
    def sleep(self) -> None:
        """The engine sleeps once, not again and again: when it wakes up there is something to do."""
        wait_s = self.scheduler.wait_s(self.now_s)
        assert wait_s is not None
        self.now_s += wait_s + 1e-9
        assert self.scheduler.wait_s(self.now_s) == 0

    def step(self) -> None:
        if not self.alive_members():
            self.batch = []
        wait_s = self.scheduler.wait_s(self.now_s)
        oldest = next(iter(self.alive.values()), None)
        before = (len(oldest.tokens), oldest.num_computed) if oldest else (0, 0)
        step = self.scheduler.schedule(self.now_s)
        assert (wait_s is None) == (not self.alive)
        assert bool(step) == (wait_s == 0)
        if not step:
            return
        self.check_company(step)
        assert sum(num_tokens for _, num_tokens in step) <= TOKEN_BUDGET
        for request, num_tokens in step:
            assert 1 <= num_tokens <= min(MAX_CHUNK, request.num_uncomputed)
            self.compute(request, num_tokens)
        sampled = [entry.request for entry in step if entry.samples]
        self.scheduler.advance(step)
        self.now_s += STEP_S
        for request in sampled:
            self.sample(request)
        if oldest is not None:  # the oldest request is never the victim, and never passed over
            assert (len(oldest.tokens), oldest.num_computed) > before

    def check_company(self, step: list[ScheduledTokens]) -> None:
        """Who may compute beside whom."""
        newcomers = [request for request, _ in step if request not in self.started]
        if newcomers:
            assert self.now_s - self.last_start_s >= self.tick_s - 1e-9
            self.last_start_s = self.now_s
        self.started += newcomers
        order = [int(request.request_id[1:]) for request in self.started]
        assert order == sorted(order), "not first come, first served"
        if any(request.alone for request, _ in step):
            assert len(step) == self.scheduler.num_running == 1
        if self.mode != "continuous":
            if not self.batch:
                self.close_batch()
            assert {request for request, _ in step} <= set(self.batch)

    def close_batch(self) -> None:
        """A batch begins: is it the right time, and who is in it?"""
        queue = list(self.alive.values())
        sociable = list(takewhile(lambda request: not request.alone, queue))
        self.batch = sociable[: self.max_batch] or queue[:1]
        full = len(self.batch) == self.max_batch or len(self.batch) < len(queue) or self.batch[0].alone
        opens_s = self.batch[0].arrived_s
        if self.mode == "static":
            opens_s = max(opens_s, self.free_since_s)
        assert full or self.now_s >= opens_s + self.window_s - 1e-9, "the batch did not wait"

    def alive_members(self) -> list[Request]:
        return [request for request in self.batch if request.request_id in self.alive]

    def compute(self, request: Request, num_tokens: int) -> None:
        for position in range(request.num_computed + num_tokens):
            slot = request.block_ids[position // BLOCK_SIZE] * BLOCK_SIZE + position % BLOCK_SIZE
            prefix = (request.cache_salt, tuple(request.tokens[: position + 1]))
            if position >= request.num_computed:
                assert self.pool.references(slot // BLOCK_SIZE) == 1, "writing into a shared block"
                self.contents[slot] = prefix
            assert self.contents[slot] == prefix

    def sample(self, request: Request) -> None:
        request.append(sum(request.tokens) % 2)
        full = len(request.tokens) == MAX_MODEL_LEN
        if full or len(request.output_token_ids) == request.params.max_tokens:
            self.scheduler.finish(request)
            del self.alive[request.request_id]
            if not self.alive_members():
                self.free_since_s = self.now_s

    @invariant()
    def everything_agrees(self) -> None:
        self.scheduler.check_integrity()
        assert self.pool.num_used + self.pool.num_free == NUM_BLOCKS
        assert 0 <= self.pool.num_cached <= self.pool.num_free
        held = {index for request in self.alive.values() for index in request.block_ids}
        assert self.pool.num_used == len(held)
        assert self.scheduler.num_running <= MAX_NUM_SEQS
        assert self.scheduler.num_running + self.scheduler.num_waiting == len(self.alive)
        assert 0 <= self.scheduler.tokens_held() <= self.scheduler.tokens_reserved()
        if self.kv == "dense":
            self.runs_are_whole()

    def runs_are_whole(self) -> None:
        assert self.scheduler.num_preemptions == self.pool.num_cached == 0
        for request in self.alive.values():
            if request.block_ids:
                first = request.block_ids[0]
                most = min(len(request.prompt_token_ids) + request.params.max_tokens, MAX_MODEL_LEN)
                assert request.block_ids == list(range(first, first + -(-most // BLOCK_SIZE)))

    def teardown(self) -> None:
        """Whatever happened before, all that were not aborted finish, and every block is free again."""
        if not hasattr(self, "alive"):
            return
        limit = sum(4 * MAX_MODEL_LEN for _ in self.alive)
        while self.alive:
            self.now_s += (self.scheduler.wait_s(self.now_s) or 0) + 1e-9
            self.step()
            limit -= 1
            assert limit >= 0, "requests do not finish"
        self.scheduler.check_integrity()
        assert self.pool.num_free == NUM_BLOCKS


TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = settings(max_examples=150, stateful_step_count=100, deadline=None, derandomize=True)


def test_scheduler_policies_and_block_pool_import_no_torch() -> None:
    code = "import sys, sluice_worker.scheduler, sluice_worker.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
