"""Log-probabilities of prompts: transformers' own, whatever the chunks, the batch and the preemptions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cpu_variants import set_threads
from tiny_models import FAMILIES, VOCAB_SIZE, SaveModel

from sluice_worker import runner
from sluice_worker.config import EngineConfig
from sluice_worker.engine import Engine, Generation
from sluice_worker.errors import RequestError, RequestTooLongError
from sluice_worker.kernels.cpu.build import find_compiler
from sluice_worker.kernels.cpu.kernels import CpuKernels
from sluice_worker.loading import loader
from sluice_worker.models.decoder import Decoder
from sluice_worker.outputs import EngineRequest, SequenceDelta, TokenLogprobs
from sluice_worker.sampling_params import SamplingParams

ALTERNATIVES = 3
PARAMS = SamplingParams(temperature=0, max_tokens=0, prompt_logprobs=ALTERNATIVES)
needs_bits = pytest.mark.skipif(find_compiler() is None, reason="no C++ compiler")
PROMPTS = [
    torch.randint(0, VOCAB_SIZE, (n,), generator=torch.Generator().manual_seed(n)).tolist()
    for n in (1, 2, 37, 64, 147, 147)
]


def make_engine(save_model: SaveModel, family: str = "llama", **settings: Any) -> Engine:
    _, folder = save_model(family)
    return Engine(EngineConfig(**{"model": str(folder), "block_size": 8, "num_kv_blocks": 128, **settings}))


def scores(results: list[Generation]) -> list[list[TokenLogprobs]]:
    return [result.prompt_logprobs for result in results]


def run(engine: Engine, *requests: EngineRequest) -> list[SequenceDelta]:
    for request in requests:
        engine.add_request(request)
    deltas = []
    while engine.has_unfinished():
        deltas += engine.step().deltas
        engine.check_integrity()
    return deltas


def ask(name: str, prompt: list[int], params: SamplingParams = PARAMS) -> EngineRequest:
    return EngineRequest(request_id=name, prompt_token_ids=prompt, params=params)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kernels", ["reference", "auto"])
def test_they_are_transformers_log_softmax(save_model: SaveModel, family: str, kernels: str) -> None:
    model, _ = save_model(family)
    engine = make_engine(save_model, family, dtype="float32", kernels=kernels, max_chunk=50)
    found = scores(engine.generate(PROMPTS, PARAMS))
    for prompt, entries in zip(PROMPTS, found, strict=True):
        with torch.inference_mode():
            expected = model(torch.tensor([prompt])).logits[0].float().log_softmax(-1)
        assert len(entries) == len(prompt) - 1
        for row, following, entry in zip(expected, prompt[1:], entries, strict=False):
            top = row.topk(ALTERNATIVES)
            assert entry.logprob == pytest.approx(row[following].item(), abs=1e-4)
            assert entry.top_logprobs == pytest.approx(top.values.tolist(), abs=1e-4)
            assert entry.top_token_ids == top.indices.tolist()


@needs_bits
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_same_bits_in_any_batch_and_any_chunks(
    monkeypatch: pytest.MonkeyPatch, save_model: SaveModel, dtype: str
) -> None:
    kernels = CpuKernels()
    monkeypatch.setattr(loader, "select_kernels", lambda device, name: kernels)
    set_threads(kernels, 1)
    alone = scores(make_engine(save_model, dtype=dtype, max_num_seqs=1).generate(PROMPTS, PARAMS))
    set_threads(kernels, 2)
    for rows, settings in (
        (64, {"max_chunk": 7}),
        (1, {}),
        (5, {"max_num_batched_tokens": 64, "block_size": 32}),
    ):
        monkeypatch.setattr(runner, "SCORED_ROWS", rows)
        assert scores(make_engine(save_model, dtype=dtype, **settings).generate(PROMPTS, PARAMS)) == alone


def test_what_is_generated_after_the_prompt_is_not_changed_by_them(save_model: SaveModel) -> None:
    engine = make_engine(save_model, max_chunk=20, enable_prefix_caching=False)
    plain = engine.generate(PROMPTS, SamplingParams(temperature=0, max_tokens=5, logprobs=1))
    scored = engine.generate(
        PROMPTS, SamplingParams(temperature=0, max_tokens=5, logprobs=1, prompt_logprobs=ALTERNATIVES)
    )
    assert [result.token_ids for result in scored] == [result.token_ids for result in plain]
    assert [result.logprobs for result in scored] == [result.logprobs for result in plain]
    assert [len(entries) for entries in scores(scored)] == [len(prompt) - 1 for prompt in PROMPTS]


def test_with_nothing_to_generate_one_delta_says_all(save_model: SaveModel) -> None:
    [delta] = run(make_engine(save_model, max_chunk=20), ask("a", PROMPTS[2]))
    assert (delta.new_token_ids, delta.logprobs, delta.finish_reason) == ([], None, "length")
    assert delta.prompt_logprobs is not None and len(delta.prompt_logprobs) == len(PROMPTS[2]) - 1


def test_they_come_once_with_the_first_token(save_model: SaveModel) -> None:
    params = SamplingParams(temperature=0, max_tokens=4, prompt_logprobs=0)
    deltas = run(make_engine(save_model), ask("a", [1, 2, 3], params))
    assert [delta.prompt_logprobs is None for delta in deltas] == [False, True, True, True]


def test_a_cached_prefix_is_not_used_but_is_left_for_others(save_model: SaveModel) -> None:
    engine = make_engine(save_model)
    prompt = PROMPTS[3]
    first, second = run(engine, ask("a", prompt)) + run(engine, ask("b", prompt))
    assert (second.num_cached_tokens, second.prompt_logprobs) == (0, first.prompt_logprobs)
    [plain] = run(engine, ask("c", prompt, SamplingParams(temperature=0, max_tokens=1)))
    assert plain.num_cached_tokens == len(prompt) - 8


@needs_bits
@pytest.mark.parametrize("prefix_caching", [True, False])
def test_preemption_neither_repeats_nor_loses_any(save_model: SaveModel, prefix_caching: bool) -> None:
    prompts = [PROMPTS[4][i : i + 40] for i in range(6)]
    params = SamplingParams(temperature=0, max_tokens=60, prompt_logprobs=ALTERNATIVES)
    roomy = make_engine(save_model, enable_prefix_caching=False)
    expected = roomy.generate(prompts, params)
    tight = make_engine(save_model, num_kv_blocks=20, max_chunk=5, enable_prefix_caching=prefix_caching)
    found = tight.generate(prompts, params)
    assert tight.stats().preemptions_total > 0
    assert scores(found) == scores(expected)


@needs_bits
def test_a_request_preempted_within_its_prompt_goes_on_where_it_was(save_model: SaveModel) -> None:
    """The older one grows until the newer one, half done, has to give its blocks back."""
    older = SamplingParams(temperature=0, max_tokens=60)
    [alone] = run(make_engine(save_model), ask("b", PROMPTS[4]))
    engine = make_engine(save_model, num_kv_blocks=21, max_chunk=3, max_num_batched_tokens=64)
    deltas = run(engine, ask("a", [1, 2, 3], older), ask("b", PROMPTS[4]))
    [found] = [delta.prompt_logprobs for delta in deltas if delta.request_id == "b"]
    assert engine.stats().preemptions_total > 0
    assert found == alone.prompt_logprobs


def test_only_a_few_rows_of_logits_exist_at_once(
    monkeypatch: pytest.MonkeyPatch, save_model: SaveModel
) -> None:
    monkeypatch.setattr(runner, "SCORED_ROWS", 16)
    counts: list[int] = []
    original = Decoder.logits

    def counted(self: Decoder, hidden: torch.Tensor) -> torch.Tensor:
        counts.append(len(hidden))
        return original(self, hidden)

    monkeypatch.setattr(Decoder, "logits", counted)
    run(make_engine(save_model), ask("a", PROMPTS[4]))
    assert (max(counts), sum(counts)) == (16, len(PROMPTS[4]) - 1)


def test_prompt_logits_are_those_that_the_log_probabilities_come_from(save_model: SaveModel) -> None:
    engine = make_engine(save_model, max_chunk=50)
    prompt = PROMPTS[4]
    pieces = list(engine.prompt_logits(prompt))
    logprobs = torch.cat(pieces).log_softmax(-1)
    [delta] = run(engine, ask("a", prompt))
    chosen = [logprobs[row, following].item() for row, following in enumerate(prompt[1:])]
    assert logprobs.shape == (len(prompt) - 1, VOCAB_SIZE)
    assert [entry.logprob for entry in delta.prompt_logprobs or ()] == pytest.approx(chosen, abs=1e-5)


def test_prompt_logits_left_half_way_leave_nothing_behind(save_model: SaveModel) -> None:
    engine = make_engine(save_model, max_chunk=10)
    rows = engine.prompt_logits(PROMPTS[4])
    next(rows)
    rows.close()  # type: ignore[attr-defined]
    engine.check_integrity()
    assert not engine.has_unfinished()
    assert engine.stats().kv_blocks_used == 0


def test_a_prompt_may_fill_the_context_when_nothing_follows(save_model: SaveModel) -> None:
    engine = make_engine(save_model, max_model_len=37)
    [delta] = run(engine, ask("a", PROMPTS[2]))
    assert delta.finish_reason == "length"
    with pytest.raises(RequestTooLongError, match="takes 37 tokens"):
        engine.add_request(ask("b", PROMPTS[2], SamplingParams(max_tokens=1, prompt_logprobs=0)))


def test_a_request_for_nothing_at_all_is_refused(save_model: SaveModel) -> None:
    with pytest.raises(RequestError, match="max_tokens is 0"):
        make_engine(save_model).add_request(ask("a", [1], SamplingParams(max_tokens=0)))
