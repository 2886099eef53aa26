"""The engine loop: what a request gets, when it ends, and what is left of it afterwards."""

from __future__ import annotations

import random
from typing import Any

import pytest
from tiny_models import VOCAB_SIZE, SaveModel

from sluice_worker.config import EngineConfig
from sluice_worker.engine import Engine
from sluice_worker.errors import RequestError, RequestTooLongError
from sluice_worker.outputs import EngineRequest, SequenceDelta
from sluice_worker.sampling_params import SamplingParams

GREEDY = SamplingParams(temperature=0, max_tokens=8)


def make_engine(save_model: SaveModel, **settings: Any) -> Engine:
    _, folder = save_model("llama")
    return Engine(EngineConfig(**{"model": str(folder), "block_size": 8, "num_kv_blocks": 64, **settings}))


@pytest.fixture
def engine(save_model: SaveModel) -> Engine:
    return make_engine(save_model)


def ask(name: str, prompt: list[int], params: SamplingParams = GREEDY, salt: str = "") -> EngineRequest:
    return EngineRequest(request_id=name, prompt_token_ids=prompt, params=params, cache_salt=salt)


def run(engine: Engine) -> list[SequenceDelta]:
    """Step until nothing is left; all deltas in order."""
    deltas = []
    while engine.has_unfinished():
        deltas += engine.step().deltas
        engine.check_integrity()
    return deltas


# ---- how a sequence ends ----------------------------------------------------------------------------------


def test_every_token_is_reported_once_and_the_last_delta_says_why_it_ended(engine: Engine) -> None:
    engine.add_request(ask("a", [1, 2, 3]))
    deltas = run(engine)
    assert [len(delta.new_token_ids) for delta in deltas] == [1] * 8
    assert [delta.finish_reason for delta in deltas] == [None] * 7 + ["length"]
    assert deltas[-1].stop_token_id is None


def test_a_stop_token_ends_the_sequence_and_is_reported(engine: Engine) -> None:
    [free] = engine.generate([[1, 2, 3]], GREEDY)
    stop = free.token_ids[3]
    first = free.token_ids.index(stop)
    engine.add_request(ask("a", [1, 2, 3], SamplingParams(temperature=0, stop_token_ids=(stop,))))
    deltas = run(engine)
    assert [delta.new_token_ids[0] for delta in deltas] == free.token_ids[: first + 1]
    assert (deltas[-1].finish_reason, deltas[-1].stop_token_id) == ("stop", stop)


def test_no_stop_token_is_chosen_before_min_tokens(engine: Engine) -> None:
    [free] = engine.generate([[1, 2, 3]], GREEDY)
    params = SamplingParams(temperature=0, max_tokens=8, min_tokens=5, stop_token_ids=(free.token_ids[0],))
    [held] = engine.generate([[1, 2, 3]], params)
    assert free.token_ids[0] not in held.token_ids[:5]


def test_a_stop_token_as_the_last_allowed_token_is_a_stop(engine: Engine) -> None:
    [free] = engine.generate([[1, 2, 3]], SamplingParams(temperature=0, max_tokens=1))
    params = SamplingParams(temperature=0, max_tokens=1, stop_token_ids=(free.token_ids[0],))
    assert engine.generate([[1, 2, 3]], params)[0].finish_reason == "stop"


def test_the_end_of_the_context_ends_the_sequence(save_model: SaveModel) -> None:
    engine = make_engine(save_model, max_model_len=10)
    [result] = engine.generate([[1, 2, 3]], SamplingParams(temperature=0, max_tokens=100))
    assert (len(result.token_ids), result.finish_reason) == (7, "length")


def test_a_sequence_may_fill_every_block(save_model: SaveModel) -> None:
    engine = make_engine(save_model, num_kv_blocks=3)
    assert engine.model_info().max_model_len == 24
    results = engine.generate([[1] * 23, [2], [3]], SamplingParams(temperature=0, max_tokens=100))
    assert [len(result.token_ids) for result in results] == [1, 23, 23]
    assert engine.stats().preemptions_total > 0


# ---- what is refused --------------------------------------------------------------------------------------


def test_a_prompt_longer_than_the_context_is_refused_before_any_work(save_model: SaveModel) -> None:
    engine = make_engine(save_model, max_model_len=10)
    with pytest.raises(RequestTooLongError, match="10 tokens"):
        engine.add_request(ask("a", [1] * 10))
    assert not engine.has_unfinished()


def test_a_prompt_longer_than_all_blocks_is_refused(save_model: SaveModel) -> None:
    engine = make_engine(save_model, num_kv_blocks=2)
    with pytest.raises(RequestTooLongError, match="16 tokens"):
        engine.add_request(ask("a", [1] * 16))


@pytest.mark.parametrize(
    ("prompt", "params", "said"),
    [
        ([], GREEDY, "empty"),
        ([VOCAB_SIZE], GREEDY, "vocabulary"),
        ([-1], GREEDY, "vocabulary"),
        ([1], SamplingParams(max_tokens=0), "max_tokens"),
    ],
)
def test_what_cannot_be_computed_is_refused(
    engine: Engine, prompt: list[int], params: SamplingParams, said: str
) -> None:
    with pytest.raises(RequestError, match=said):
        engine.add_request(ask("a", prompt, params))


def test_an_id_in_use_is_refused_and_free_again_afterwards(engine: Engine) -> None:
    engine.add_request(ask("a", [1]))
    with pytest.raises(RequestError, match="already in flight"):
        engine.add_request(ask("a", [1]))
    run(engine)
    engine.add_request(ask("a", [1]))


# ---- abort ------------------------------------------------------------------------------------------------


def test_an_aborted_request_frees_its_blocks_and_is_never_heard_of_again(engine: Engine) -> None:
    engine.add_request(ask("gone", [1] * 20))
    engine.add_request(ask("stays", [2] * 20))
    engine.step()
    used = engine.stats().kv_blocks_used
    assert engine.abort("gone")
    assert engine.stats().kv_blocks_used == used // 2
    assert {delta.request_id for delta in run(engine)} == {"stays"}
    assert engine.stats().kv_blocks_used == 0
    assert not engine.abort("gone")


def test_aborting_in_the_middle_of_a_chunked_prompt_leaves_a_usable_cache(save_model: SaveModel) -> None:
    prompt = [i % VOCAB_SIZE for i in range(100)]
    [expected] = make_engine(save_model).generate([prompt], GREEDY)
    engine = make_engine(save_model, max_chunk=20)
    engine.add_request(ask("gone", prompt))
    engine.step()
    engine.step()
    engine.abort("gone")
    [again] = engine.generate([prompt], GREEDY)
    assert again.num_cached_tokens == 40
    assert again.token_ids == expected.token_ids


# ---- prefix cache and accounting --------------------------------------------------------------------------


def test_cached_tokens_are_reported_and_counted(engine: Engine) -> None:
    prompt = list(range(30))
    assert engine.generate([prompt], GREEDY)[0].num_cached_tokens == 0
    assert engine.generate([prompt], GREEDY)[0].num_cached_tokens == 24
    stats = engine.stats()
    assert (stats.prompt_tokens_total, stats.cached_tokens_total) == (60, 24)
    assert stats.generation_tokens_total == 16
    assert stats.kv_blocks_cached == 4  # 30 prompt tokens and 7 computed output tokens


def test_the_answer_so_far_is_cached_for_the_next_turn(engine: Engine) -> None:
    prompt = list(range(30))
    [answer] = engine.generate([prompt], GREEDY)
    [turn] = engine.generate([[*prompt, *answer.token_ids, 5, 6]], GREEDY)
    assert turn.num_cached_tokens == 32


def test_other_salts_see_nothing_of_the_cache(engine: Engine) -> None:
    prompt = list(range(30))
    for salt, expected in (("one", 0), ("two", 0), ("one", 24)):
        engine.add_request(ask("a", prompt, salt=salt))
        assert run(engine)[0].num_cached_tokens == expected


def test_the_prefix_cache_can_be_switched_off(save_model: SaveModel) -> None:
    engine = make_engine(save_model, enable_prefix_caching=False)
    for _ in range(2):
        assert engine.generate([list(range(30))], GREEDY)[0].num_cached_tokens == 0
    assert engine.stats().kv_blocks_cached == 0


def test_logprobs_come_with_every_token_when_asked_for(engine: Engine) -> None:
    params = SamplingParams(temperature=0, max_tokens=4, logprobs=3)
    engine.add_request(ask("a", [1, 2, 3], params))
    for delta in run(engine):
        assert delta.logprobs is not None
        [entry] = delta.logprobs
        assert entry.top_token_ids[0] == delta.new_token_ids[0]
        assert entry.logprob == entry.top_logprobs[0] < 0
        assert len(entry.top_token_ids) == 3


def test_the_same_seed_gives_the_same_text_alone_and_in_a_batch(engine: Engine) -> None:
    params = SamplingParams(temperature=1.0, seed=5, max_tokens=20)
    [alone] = engine.generate([[1, 2, 3]], params)
    together = engine.generate([[9] * 40, [1, 2, 3], [4]], params)
    assert together[1].token_ids == alone.token_ids
    assert together[1].token_ids != together[2].token_ids


def test_model_info_states_the_limits(engine: Engine) -> None:
    info = engine.model_info()
    assert (info.architecture, info.dtype, info.device) == ("LlamaForCausalLM", "float32", "cpu")
    assert (info.block_size, info.num_kv_blocks, info.max_model_len) == (8, 64, 512)
    assert (info.vocab_size, info.kv_bytes_per_token, info.kernels) == (VOCAB_SIZE, 512, "cpu")
    assert info.num_parameters == 2 * VOCAB_SIZE * 64 + 2 * (64 * 64 * 3 + 3 * 64 * 96 + 2 * 64) + 64


def test_a_step_without_work_reports_nothing(engine: Engine) -> None:
    outputs = engine.step()
    assert (outputs.deltas, outputs.stats.steps_total) == ([], 0)


# ---- stress -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("enable_prefix_caching", [True, False])
def test_random_traffic_gives_each_request_the_tokens_it_gets_alone(
    save_model: SaveModel, enable_prefix_caching: bool
) -> None:
    """Arrivals, aborts, shared prefixes and scarce blocks at once; integrity checked after every step."""
    rng = random.Random(11)
    engine = make_engine(
        save_model,
        num_kv_blocks=30,
        max_num_seqs=6,
        max_chunk=13,
        max_num_batched_tokens=24,
        enable_prefix_caching=enable_prefix_caching,
    )
    shared = [rng.randrange(VOCAB_SIZE) for _ in range(40)]
    asked: dict[str, EngineRequest] = {}
    got: dict[str, list[int]] = {}
    for index in range(60):
        prompt = shared[: rng.choice([0, 16, 40])] + [rng.randrange(VOCAB_SIZE) for _ in range(1 + index)]
        params = SamplingParams(temperature=index % 2, seed=index, max_tokens=rng.randint(1, 40))
        asked[f"r{index}"] = ask(f"r{index}", prompt, params, salt=rng.choice(["", "tenant"]))
    waiting, aborted = list(asked), set()
    while waiting or engine.has_unfinished():
        if waiting and rng.random() < 0.3:
            engine.add_request(asked[waiting.pop(0)])
        if rng.random() < 0.05:
            victim = rng.choice(list(asked))
            if engine.abort(victim):
                aborted.add(victim)
        for delta in engine.step().deltas:
            assert delta.request_id not in aborted
            got.setdefault(delta.request_id, []).extend(delta.new_token_ids)
        engine.check_integrity()
    stats = engine.stats()
    assert aborted
    assert stats.preemptions_total > 0
    assert (stats.kv_blocks_used, stats.num_running, stats.num_waiting) == (0, 0, 0)
    alone = make_engine(save_model, enable_prefix_caching=False)
    for name in asked.keys() - aborted:
        [expected] = alone.generate([asked[name].prompt_token_ids], asked[name].params)
        assert got[name] == expected.token_ids, name
