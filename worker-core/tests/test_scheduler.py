"""Who computes what in a step: budget, order, chunks, admission, prefix hits and preemption."""

from __future__ import annotations

from sluice_worker.batching import ContinuousBatching
from sluice_worker.block_pool import BlockPool
from sluice_worker.kv_allocation import PagedAllocation
from sluice_worker.outputs import EngineRequest
from sluice_worker.pacing import Pacer
from sluice_worker.request import Request
from sluice_worker.sampling_params import SamplingParams
from sluice_worker.scheduler import ScheduledTokens, Scheduler


def request(name: str, prompt: list[int] | int, salt: str = "") -> Request:
    """A request with the given prompt, or with a prompt of that many tokens nobody else has."""
    tokens = prompt if isinstance(prompt, list) else [sum(name.encode()) * 100 + i for i in range(prompt)]
    asked = EngineRequest(request_id=name, prompt_token_ids=tokens, params=SamplingParams(), cache_salt=salt)
    return Request(asked)


def scheduler(
    num_blocks: int = 100, *, seqs: int = 8, budget: int = 64, chunk: int = 64, pacer: Pacer | None = None
) -> Scheduler:
    return Scheduler(
        PagedAllocation(BlockPool(num_blocks, block_size=4)),
        ContinuousBatching(),
        max_num_seqs=seqs,
        max_num_batched_tokens=budget,
        max_chunk=chunk,
        pacer=pacer,
    )


def shares(step: list[ScheduledTokens]) -> dict[str, int]:
    return {entry.request.request_id: entry.num_tokens for entry in step}


def compute(scheduler: Scheduler) -> dict[str, int]:
    """One step with token 7 sampled wherever a token is due."""
    step = scheduler.schedule(0.0)
    sampled = [entry.request for entry in step if entry.samples]
    planned = shares(step)
    scheduler.advance(step)
    for each in sampled:
        each.append(7)
    scheduler.check_integrity()
    return planned


def test_prompts_share_the_token_budget_in_order_of_arrival() -> None:
    queue = scheduler(budget=10)
    for name in ("a", "b", "c"):
        queue.add(request(name, 6))
    assert compute(queue) == {"a": 6, "b": 4}
    assert compute(queue) == {"a": 1, "b": 2, "c": 6}


def test_prompts_beside_decodes_get_what_the_pacer_allows_between_them() -> None:
    queue = scheduler(pacer=Pacer(2.0, start=20))
    queue.add(request("first", 50))
    assert compute(queue) == {"first": 50}  # nobody waits for it
    queue.add(request("second", 15))
    queue.add(request("third", 30))
    assert compute(queue) == {"first": 1, "second": 15, "third": 5}
    assert compute(queue) == {"first": 1, "second": 1, "third": 20}


def test_the_pacer_counts_the_prompts_there_is_room_for() -> None:
    asked = []

    class Watched(Pacer):
        def allowance(self, decodes: int, prompts: int) -> int:
            asked.append((decodes, prompts))
            return super().allowance(decodes, prompts)

    queue = scheduler(pacer=Watched(2.0, start=20), seqs=4)
    for name in ("first", "second"):
        queue.add(request(name, 10))
    compute(queue)
    for index in range(5):
        queue.add(request(f"later {index}", 30))
    compute(queue)  # 20 tokens of the first of them, who is then running
    compute(queue)
    assert asked == [(2, 2), (2, 2)]


def test_a_long_prompt_is_computed_in_chunks_beside_decodes() -> None:
    queue = scheduler(budget=8, chunk=5)
    queue.add(request("short", 2))
    compute(queue)
    queue.add(request("long", 12))
    assert compute(queue) == {"short": 1, "long": 5}
    assert compute(queue) == {"short": 1, "long": 5}
    assert compute(queue) == {"short": 1, "long": 2}
    assert compute(queue) == {"short": 1, "long": 1}


def test_decodes_come_first_even_when_younger_than_a_prefill() -> None:
    queue = scheduler(budget=4, chunk=3)
    queue.add(request("long", 20))
    queue.add(request("short", 1))
    assert compute(queue) == {"long": 3, "short": 1}
    step = queue.schedule(0.0)
    assert [entry.request.request_id for entry in step] == ["short", "long"]


def test_only_an_entry_that_reaches_the_end_of_its_tokens_samples() -> None:
    queue = scheduler(chunk=5)
    queue.add(request("a", 8))
    step = queue.schedule(0.0)
    assert not step[0].samples
    queue.advance(step)
    assert queue.schedule(0.0)[0].samples


def test_the_batch_takes_no_more_requests_than_allowed() -> None:
    queue = scheduler(seqs=2)
    for name in ("a", "b", "c"):
        queue.add(request(name, 1))
    assert compute(queue) == {"a": 1, "b": 1}
    assert (queue.num_running, queue.num_waiting) == (2, 1)


def test_admission_leaves_a_block_of_growth_for_each_running_request() -> None:
    queue = scheduler(num_blocks=4)
    queue.add(request("a", 8))
    queue.add(request("b", 8))
    assert compute(queue) == {"a": 8}  # b would take the last two blocks and leave none for a
    assert queue.num_waiting == 1


def test_a_prefix_hit_starts_computing_behind_the_shared_blocks() -> None:
    queue = scheduler()
    queue.add(request("first", [1, 2, 3, 4, 5, 6, 7, 8, 9]))
    compute(queue)
    second = request("second", [1, 2, 3, 4, 5, 6, 7, 8, 20, 21])
    queue.add(second)
    assert compute(queue)["second"] == 2
    assert second.num_cached_tokens == 8


def test_a_full_hit_leaves_one_token_to_compute() -> None:
    queue = scheduler()
    queue.add(request("first", [1, 2, 3, 4]))
    compute(queue)
    queue.add(request("again", [1, 2, 3, 4]))
    assert compute(queue)["again"] == 4  # its only block is full, but one token must be left to compute
    queue.add(request("longer", [1, 2, 3, 4, 5]))
    assert compute(queue)["longer"] == 1


def test_blocks_are_shared_only_once_their_tokens_are_computed() -> None:
    queue = scheduler(chunk=4, budget=8)
    queue.add(request("first", [1, 2, 3, 4, 5, 6, 7, 8, 9]))
    queue.add(request("second", [1, 2, 3, 4, 5, 6, 7, 8, 9]))
    assert compute(queue) == {"first": 4, "second": 4}  # both admitted before anything was known
    third = request("third", [1, 2, 3, 4, 5, 6, 7, 8, 9])
    queue.add(third)
    queue.abort("second")
    assert compute(queue) == {"first": 4, "third": 4}
    assert third.num_cached_tokens == 4  # the second block was planned, not yet computed


def test_salts_do_not_share() -> None:
    queue = scheduler()
    queue.add(request("mine", [1, 2, 3, 4, 5], salt="a"))
    compute(queue)
    queue.add(request("yours", [1, 2, 3, 4, 5], salt="b"))
    assert compute(queue)["yours"] == 5


def test_the_newest_request_is_preempted_and_recomputed() -> None:
    queue = scheduler(num_blocks=5)
    old, new = request("old", 8), request("new", 7)
    queue.add(old)
    queue.add(new)
    compute(queue)
    compute(queue)  # old takes the last free block for its ninth token
    assert compute(queue) == {"old": 1}  # new needs a third block
    assert (queue.num_preemptions, new.num_computed, new.block_ids) == (1, 0, [])
    assert queue.waiting_uncached_tokens == 1  # all but its two full blocks
    queue.finish(old)
    assert compute(queue)["new"] == 1  # its two full blocks are still cached
    assert new.num_cached_tokens == 0  # own leftovers are not a prefix hit


def test_a_preempted_request_goes_before_those_that_wait() -> None:
    queue = scheduler(num_blocks=5)
    old = request("old", 8)
    queue.add(old)
    queue.add(request("new", 7))
    compute(queue)
    compute(queue)
    queue.add(request("tiny", 1))
    assert compute(queue) == {"old": 1}
    queue.finish(old)
    assert list(compute(queue)) == ["new", "tiny"]


def test_cached_blocks_that_are_shared_again_count_as_taken() -> None:
    queue = scheduler(num_blocks=4)
    first = request("first", [1, 2, 3, 4, 5, 6, 7, 8, 9])
    queue.add(first)
    compute(queue)
    queue.finish(first)
    queue.add(request("other", 2))
    compute(queue)
    queue.add(request("again", [1, 2, 3, 4, 5, 6, 7, 8, 9]))
    assert compute(queue) == {"other": 1}  # the hits and one new block would leave other none to grow


def test_aborting_frees_the_blocks_at_once() -> None:
    queue = scheduler(num_blocks=4)
    queue.add(request("a", 8))
    queue.add(request("b", 8))
    compute(queue)
    assert queue.abort("b")  # waiting
    assert queue.abort("a")  # running
    assert not queue.abort("a")
    queue.add(request("c", 15))
    assert compute(queue) == {"c": 15}


def test_without_prefix_caching_nothing_is_remembered() -> None:
    pool = BlockPool(10, block_size=4)
    allocation = PagedAllocation(pool, enable_prefix_caching=False)
    queue = Scheduler(
        allocation, ContinuousBatching(), max_num_seqs=4, max_num_batched_tokens=64, max_chunk=64
    )
    for name in ("a", "b"):
        again = request(name, [1, 2, 3, 4, 5])
        queue.add(again)
        assert compute(queue) == {name: 5}
        queue.finish(again)
    assert pool.num_cached == 0


def test_an_idle_scheduler_schedules_nothing() -> None:
    assert scheduler().schedule(0.0) == []


def test_what_waits_is_counted_in_tokens_that_nobody_has_computed_yet() -> None:
    queue = scheduler(seqs=1, budget=64)
    prompt = list(range(12))
    queue.add(request("first", [*prompt, 50]))
    assert queue.waiting_uncached_tokens == 13  # until a step takes it in
    compute(queue)
    assert queue.waiting_uncached_tokens == 0
    queue.add(request("same", [*prompt, 60, 61]))
    queue.add(request("other", 9))
    assert queue.waiting_uncached_tokens == (14 - 12) + 9
    queue.abort("same")
    assert queue.waiting_uncached_tokens == 9
    queue.abort("other")
    assert queue.waiting_uncached_tokens == 0
    queue.check_integrity()
