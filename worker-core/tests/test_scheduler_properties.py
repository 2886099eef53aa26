"""Scheduler and block pool under thousands of random steps, with the cache's contents simulated.

Every slot of the simulated cache remembers *which prefix* was written to it. A step may only build on slots
that hold exactly the prefix of its request: this catches a block shared too early, reused while referenced,
or hit under the wrong salt, without computing anything.
"""

from __future__ import annotations

import subprocess
import sys

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sluice_worker.block_pool import BlockPool
from sluice_worker.outputs import EngineRequest
from sluice_worker.request import Request
from sluice_worker.sampling_params import SamplingParams
from sluice_worker.scheduler import Scheduler

NUM_BLOCKS = 12
BLOCK_SIZE = 4
MAX_MODEL_LEN = NUM_BLOCKS * BLOCK_SIZE
MAX_NUM_SEQS = 5
TOKEN_BUDGET = 9
MAX_CHUNK = 6


class SchedulerMachine(RuleBasedStateMachine):
    """Adds, aborts and steps at random, and plays the part of the engine."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(NUM_BLOCKS, BLOCK_SIZE)
        self.scheduler = Scheduler(
            self.pool,
            max_num_seqs=MAX_NUM_SEQS,
            max_num_batched_tokens=TOKEN_BUDGET,
            max_chunk=MAX_CHUNK,
        )
        self.alive: dict[str, Request] = {}
        self.num_added = 0
        self.contents: dict[int, object] = {}

    @rule(
        prompt=st.lists(st.integers(0, 1), min_size=1, max_size=MAX_MODEL_LEN - 1),
        max_tokens=st.integers(1, 20),
        salt=st.sampled_from(["", "tenant"]),
    )
    def add(self, prompt: list[int], max_tokens: int, salt: str) -> None:
        self.num_added += 1
        request = Request(
            EngineRequest(
                request_id=f"r{self.num_added}",
                prompt_token_ids=prompt,
                params=SamplingParams(max_tokens=max_tokens),
                cache_salt=salt,
            )
        )
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

    def step(self) -> None:
        oldest = next(iter(self.alive.values()), None)
        before = (len(oldest.tokens), oldest.num_computed) if oldest else (0, 0)
        step = self.scheduler.schedule()
        assert bool(step) == bool(self.alive)
        assert sum(num_tokens for _, num_tokens in step) <= TOKEN_BUDGET
        for request, num_tokens in step:
            assert 1 <= num_tokens <= min(MAX_CHUNK, request.num_uncomputed)
            self.compute(request, num_tokens)
        sampled = [entry.request for entry in step if entry.samples]
        self.scheduler.advance(step)
        for request in sampled:
            self.sample(request)
        if oldest is not None:  # the oldest request is never the victim, and never passed over
            assert (len(oldest.tokens), oldest.num_computed) > before

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

    @invariant()
    def everything_agrees(self) -> None:
        self.scheduler.check_integrity()
        assert self.pool.num_used + self.pool.num_free == NUM_BLOCKS
        assert 0 <= self.pool.num_cached <= self.pool.num_free
        held = {index for request in self.alive.values() for index in request.block_ids}
        assert self.pool.num_used == len(held)
        assert self.scheduler.num_running <= MAX_NUM_SEQS
        assert self.scheduler.num_running + self.scheduler.num_waiting == len(self.alive)

    def teardown(self) -> None:
        """Whatever happened before, all that were not aborted finish, and every block is free again."""
        limit = sum(4 * MAX_MODEL_LEN for _ in self.alive)
        while self.alive:
            self.step()
            limit -= 1
            assert limit >= 0, "requests do not finish"
        self.scheduler.check_integrity()
        assert self.pool.num_free == NUM_BLOCKS


TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = settings(max_examples=100, stateful_step_count=100, deadline=None, derandomize=True)


def test_scheduler_and_block_pool_import_no_torch() -> None:
    code = "import sys, sluice_worker.scheduler, sluice_worker.block_pool; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
