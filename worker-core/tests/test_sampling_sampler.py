from __future__ import annotations

import math
from collections import Counter

import msgspec
import pytest
import torch

from sluice_worker.kernels.reference import ReferenceKernels
from sluice_worker.sampling import Sampler, SamplingRow
from sluice_worker.sampling_params import SamplingParams

VOCAB = 8
LOGITS = torch.tensor([2.0, 1.5, 1.0, 0.5, 0.0, -0.5, -1.0, -6.0])
DRAWS = 20_000


def make_sampler(vocab_size: int = VOCAB) -> Sampler:
    return Sampler(vocab_size, ReferenceKernels())


def row(params: SamplingParams, prompt: tuple[int, ...] = (), output: tuple[int, ...] = ()) -> SamplingRow:
    return SamplingRow(params, prompt, output)


def draw_many(logits: torch.Tensor, params: SamplingParams) -> Counter[int]:
    """One draw at each of many output positions, as a long answer would make."""
    rows = [SamplingRow(params, (), range(position)) for position in range(DRAWS)]
    return Counter(token.token_id for token in make_sampler().sample(logits.expand(DRAWS, VOCAB), rows))


def chi_square(observed: Counter[int], probabilities: torch.Tensor) -> float:
    expected = {i: DRAWS * float(p) for i, p in enumerate(probabilities) if p > 0}
    return math.fsum((observed[i] - count) ** 2 / count for i, count in expected.items())


def test_greedy_takes_the_most_likely_token() -> None:
    sampled = make_sampler().sample(LOGITS[None], [row(SamplingParams(temperature=0.0))])

    assert sampled == [(0, None)]


def test_padding_columns_are_never_chosen() -> None:
    padded = torch.cat([LOGITS, torch.tensor([99.0])])

    assert make_sampler().sample(padded[None], [row(SamplingParams(temperature=0.0))])[0].token_id == 0


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_draws_follow_the_tempered_softmax(temperature: float) -> None:
    observed = draw_many(LOGITS, SamplingParams(temperature=temperature, seed=7))

    # 7 degrees of freedom: 24.3 is exceeded by a right sampler once in a thousand seeds; the seed is fixed.
    assert chi_square(observed, torch.softmax(LOGITS / temperature, 0)) < 24.3


def test_draws_under_top_k_and_top_p_follow_the_renormalized_rest() -> None:
    observed = draw_many(LOGITS, SamplingParams(top_k=5, top_p=0.8, seed=3))

    probabilities = torch.softmax(LOGITS[:5], 0)
    kept = int((probabilities.cumsum(0) - probabilities < 0.8).sum())
    expected = torch.cat([probabilities[:kept] / probabilities[:kept].sum(), torch.zeros(VOCAB - kept)])
    assert set(observed) == set(range(kept))
    assert chi_square(observed, expected) < 16.3  # 3 degrees of freedom, one in a thousand


def test_draws_at_one_position_differ_between_seeds_as_the_softmax_says() -> None:
    rows = [row(SamplingParams(seed=seed)) for seed in range(DRAWS)]
    observed = Counter(token.token_id for token in make_sampler().sample(LOGITS.expand(DRAWS, VOCAB), rows))

    assert chi_square(observed, torch.softmax(LOGITS, 0)) < 24.3


def test_consecutive_draws_are_independent() -> None:
    rows = [SamplingRow(SamplingParams(seed=11), (), range(position)) for position in range(DRAWS)]
    flat = torch.zeros(2)
    bits = [token.token_id for token in make_sampler(2).sample(flat.expand(DRAWS, 2), rows)]

    pairs = Counter(zip(bits[::2], bits[1::2], strict=True))
    expected = DRAWS / 2 / 4
    assert sum((pairs[a, b] - expected) ** 2 / expected for a in (0, 1) for b in (0, 1)) < 16.3


def test_the_same_seed_repeats_and_another_seed_does_not() -> None:
    flat = torch.zeros(1, 1000)

    def text(seed: int) -> list[int]:
        params = SamplingParams(seed=seed)
        return [
            make_sampler(1000).sample(flat, [SamplingRow(params, (), range(p))])[0].token_id for p in range(8)
        ]

    assert text(1) == text(1)
    assert text(1) != text(2)


def test_a_long_tail_of_unlikely_tokens_is_drawn_as_often_as_its_mass_says() -> None:
    tail = 20_000
    logits = torch.cat([torch.zeros(1), torch.full((tail,), -11.0)])  # the tail holds a quarter of the mass
    rows = [SamplingRow(SamplingParams(seed=2), (), range(position)) for position in range(400)]

    drawn = [token.token_id for token in make_sampler(tail + 1).sample(logits.expand(400, tail + 1), rows)]

    mass = tail * math.exp(-11.0) / (1 + tail * math.exp(-11.0))
    deviation = math.sqrt(400 * mass * (1 - mass))
    assert sum(token_id > 0 for token_id in drawn) == pytest.approx(400 * mass, abs=3 * deviation)


def test_top_p_looks_beyond_its_first_candidates_when_the_distribution_is_flat() -> None:
    flat = torch.arange(2000).float().flip(0) * 1e-4
    rows = [SamplingRow(SamplingParams(top_p=0.9, seed=5), (), range(p)) for p in range(3000)]

    drawn = [token.token_id for token in make_sampler(2000).sample(flat.expand(3000, 2000), rows)]

    cut = int((torch.softmax(flat.double(), 0).cumsum(0) < 0.9).sum())
    assert 64 < max(drawn) <= cut
    assert max(drawn) > 0.98 * cut


def test_tokens_tied_with_the_last_kept_one_stay() -> None:
    tied = torch.tensor([3.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0])

    assert set(draw_many(tied, SamplingParams(top_k=2, seed=1))) == {0, 1, 2, 3}


def test_penalties_push_repeated_tokens_below_fresh_ones() -> None:
    greedy = SamplingParams(temperature=0.0)
    cases = {
        "repetition counts the prompt": (row(_with(greedy, repetition_penalty=2.0), prompt=(0,)), 1),
        "presence counts the output": (row(_with(greedy, presence_penalty=0.6), output=(0, 0)), 1),
        "presence ignores the prompt": (row(_with(greedy, presence_penalty=0.6), prompt=(0,)), 0),
        "frequency grows with the count": (row(_with(greedy, frequency_penalty=0.3), output=(0, 0)), 1),
        "frequency once is too little": (row(_with(greedy, frequency_penalty=0.3), output=(0,)), 0),
        "bias lifts a token": (row(_with(greedy, logit_bias={7: 100.0})), 7),
        "bias bans a token": (row(_with(greedy, logit_bias={0: -100.0})), 1),
    }
    for name, (sequence, expected) in cases.items():
        assert make_sampler().sample(LOGITS[None], [sequence])[0].token_id == expected, name


def test_stop_tokens_cannot_be_chosen_before_min_tokens() -> None:
    params = SamplingParams(temperature=0.0, stop_token_ids=(0,), min_tokens=2, logit_bias={0: 100.0})
    chosen = [
        make_sampler().sample(LOGITS[None], [row(params, output=(1,) * length)])[0].token_id
        for length in range(3)
    ]

    assert chosen == [1, 1, 0]


def test_logprobs_are_of_the_model_not_of_the_sampler() -> None:
    params = SamplingParams(temperature=0.3, top_k=1, logit_bias={3: 100.0}, logprobs=2)
    sampled = make_sampler().sample(LOGITS[None], [row(params)])[0]

    expected = torch.log_softmax(LOGITS, 0)
    assert sampled.token_id == 3
    assert sampled.logprobs is not None
    assert sampled.logprobs.logprob == pytest.approx(expected[3].item())
    assert sampled.logprobs.top_token_ids == [0, 1]
    assert sampled.logprobs.top_logprobs == pytest.approx(expected[:2].tolist())


def test_logprobs_without_alternatives_and_with_more_than_the_vocabulary_has() -> None:
    rows = [row(SamplingParams(temperature=0.0, logprobs=k)) for k in (0, 20)]
    none, all_of_them = make_sampler().sample(LOGITS.expand(2, VOCAB), rows)

    assert none.logprobs is not None and none.logprobs.top_token_ids == []
    assert all_of_them.logprobs is not None and len(all_of_them.logprobs.top_token_ids) == VOCAB
    assert math.fsum(math.exp(p) for p in all_of_them.logprobs.top_logprobs) == pytest.approx(1.0, abs=1e-5)


def test_bfloat16_logits_are_sampled_without_being_changed() -> None:
    logits = LOGITS.to(torch.bfloat16).expand(2, VOCAB).contiguous()
    before = logits.clone()

    make_sampler().sample(logits, [row(SamplingParams(logit_bias={0: 1.0})), row(SamplingParams(top_p=0.5))])

    assert torch.equal(logits, before)


def test_a_temperature_too_small_to_divide_by_is_greedy() -> None:
    assert make_sampler().sample(LOGITS[None], [row(SamplingParams(temperature=1e-45))])[0].token_id == 0


def test_rows_and_logits_must_match() -> None:
    with pytest.raises(ValueError, match="2 rows of logits for 1 sequences"):
        make_sampler().sample(LOGITS.expand(2, VOCAB), [row(SamplingParams())])


def test_an_empty_batch_gives_nothing() -> None:
    assert make_sampler().sample(torch.empty(0, VOCAB), []) == []


def _with(params: SamplingParams, **changes: object) -> SamplingParams:
    return msgspec.structs.replace(params, **changes)
