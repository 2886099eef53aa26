"""Dense allocation: one contiguous run for all that a request may become, and what that costs."""

from __future__ import annotations

from tiny_models import SaveModel

from sluice_worker.batching import ContinuousBatching
from sluice_worker.block_pool import BlockPool
from sluice_worker.config import EngineConfig
from sluice_worker.engine import Engine
from sluice_worker.kv_allocation import DenseAllocation
from sluice_worker.outputs import EngineRequest
from sluice_worker.request import Request
from sluice_worker.sampling_params import SamplingParams
from sluice_worker.scheduler import Scheduler


def request(name: str, prompt: int, max_tokens: int) -> Request:
    params = SamplingParams(max_tokens=max_tokens)
    return Request(EngineRequest(request_id=name, prompt_token_ids=[1] * prompt, params=params))


def scheduler(num_blocks: int, max_model_len: int = 40) -> Scheduler:
    return Scheduler(
        DenseAllocation(BlockPool(num_blocks, block_size=4), max_model_len=max_model_len),
        ContinuousBatching(),
        max_num_seqs=8,
        max_num_batched_tokens=64,
        max_chunk=64,
    )


def step(queue: Scheduler) -> list[str]:
    entries = queue.schedule(0.0)
    sampled = [entry.request for entry in entries if entry.samples]
    queue.advance(entries)
    for each in sampled:
        each.append(7)
    queue.check_integrity()
    return [entry.request.request_id for entry in entries]


def test_a_request_holds_room_for_its_longest_answer_from_the_first_step() -> None:
    queue, asked = scheduler(10), request("a", prompt=3, max_tokens=9)
    queue.add(asked)
    step(queue)
    assert asked.block_ids == [0, 1, 2]
    assert (queue.tokens_reserved(), queue.tokens_held()) == (12, 3)
    for _ in range(8):
        step(queue)
    assert asked.block_ids == [0, 1, 2]
    assert queue.tokens_held() == 11


def test_no_more_is_reserved_than_the_context_holds() -> None:
    queue, asked = scheduler(10, max_model_len=16), request("a", prompt=3, max_tokens=10**9)
    queue.add(asked)
    step(queue)
    assert len(asked.block_ids) == 4


def test_what_is_reserved_keeps_others_out_although_it_is_empty() -> None:
    queue = scheduler(8)
    for name in ("a", "b"):
        queue.add(request(name, prompt=1, max_tokens=19))
    assert [step(queue), step(queue)] == [["a"], ["a"]]
    assert queue.num_waiting == 1


def test_free_memory_in_pieces_is_of_no_use_and_is_used_once_it_is_whole() -> None:
    queue = scheduler(6)
    held = {name: request(name, prompt=1, max_tokens=7) for name in ("a", "b", "c")}  # two blocks each
    for each in held.values():
        queue.add(each)
    step(queue)
    queue.finish(held["a"])
    queue.finish(held["c"])
    wide = request("wide", prompt=4, max_tokens=8)  # three blocks: four are free, two and two
    queue.add(wide)
    assert step(queue) == ["b"]
    queue.finish(held["b"])
    assert step(queue) == ["wide"]


def test_a_gap_between_two_runs_is_filled_again() -> None:
    queue = scheduler(6)
    held = {name: request(name, prompt=1, max_tokens=7) for name in ("a", "b", "c")}
    for each in held.values():
        queue.add(each)
    step(queue)
    queue.finish(held["b"])
    again = request("again", prompt=2, max_tokens=6)
    queue.add(again)
    step(queue)
    assert again.block_ids == [2, 3]


def test_nothing_is_shared_and_nobody_is_preempted() -> None:
    queue = scheduler(12)
    first, second = request("a", prompt=9, max_tokens=7), request("b", prompt=9, max_tokens=7)
    queue.add(first)
    step(queue)
    queue.add(second)
    step(queue)
    assert (second.num_cached_tokens, queue.num_preemptions) == (0, 0)
    assert not set(first.block_ids) & set(second.block_ids)


def test_statistics_tell_what_is_reserved_from_what_is_used(save_model: SaveModel) -> None:
    _, folder = save_model("llama")
    held = {}
    for kv in ("paged", "dense"):
        config = EngineConfig(model=str(folder), block_size=8, num_kv_blocks=64, kv=kv)  # type: ignore[arg-type]
        engine = Engine(config)
        asked = SamplingParams(temperature=0, max_tokens=100)
        engine.add_request(EngineRequest(request_id="a", prompt_token_ids=[1] * 20, params=asked))
        engine.step()
        stats = engine.stats()
        held[kv] = (stats.kv_tokens_reserved, stats.kv_tokens_held)
        engine.step()
        stats = engine.stats()
        assert (stats.kv_reserved_steps_total, stats.kv_held_steps_total) == (2 * held[kv][0], 41)
        assert stats.sequence_steps_total == 2
    assert held == {"paged": (24, 20), "dense": (120, 20)}
