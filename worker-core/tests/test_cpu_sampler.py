"""The C++ sampler against its specification: `sluice_worker.sampling`, token for token."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
import torch
from cpu_variants import ISAS, forced_kernels, set_threads
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sluice_worker.kernels.cpu.kernels import CpuKernels
from sluice_worker.kernels.interface import Draw
from sluice_worker.kernels.reference import ReferenceKernels
from sluice_worker.sampling import Sampler, SamplingRow, noise, truncation
from sluice_worker.sampling_params import SamplingParams

every_isa = pytest.mark.parametrize("isa", ISAS)
some = settings(max_examples=150, deadline=None)

params_strategy = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 0.1, 0.7, 1.0, 2.0]),
    top_k=st.sampled_from([0, 0, 1, 2, 40, 1000]),
    top_p=st.sampled_from([1.0, 1.0, 0.99, 0.7, 0.31, 0.001]),
    min_p=st.sampled_from([0.0, 0.0, 0.003, 0.2, 1.0]),
    seed=st.integers(-(2**63), 2**64 - 1),
)
rows_strategy = st.lists(
    st.builds(
        SamplingRow,
        params=params_strategy,
        prompt_token_ids=st.just(()),
        output_token_ids=st.lists(st.integers(0, 9), max_size=5),
    ),
    min_size=1,
    max_size=5,
)
dtypes = st.sampled_from([torch.float32, torch.bfloat16])
vocabularies = st.sampled_from([1, 15, 16, 17, 150, 2000])


def make_logits(rows: int, vocab: int, seed: int, spread: float, dtype: torch.dtype, step: float) -> Tensor:
    """Random logits, rounded to multiples of `step` if that is not 0, so that equal ones are common."""
    logits = torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed)) * spread
    return ((logits / step).round() * step if step else logits).to(dtype)


def choose(kernels: CpuKernels, logits: Tensor, rows: list[SamplingRow]) -> list[int]:
    return kernels.sample(logits, [row.draw() for row in rows]).tolist()


def specified(logits: Tensor, rows: list[SamplingRow]) -> list[int]:
    return [token.token_id for token in Sampler(logits.shape[1], ReferenceKernels()).sample(logits, rows)]


@every_isa
@some
@given(
    rows=rows_strategy,
    seed=st.integers(0, 10_000),
    vocab=vocabularies,
    dtype=dtypes,
    spread=st.sampled_from([0.0, 0.5, 3.0, 20.0]),
    step=st.sampled_from([0.0, 0.25]),
)
def test_agrees_with_the_sampler_token_for_token(
    isa: str,
    rows: list[SamplingRow],
    seed: int,
    vocab: int,
    dtype: torch.dtype,
    spread: float,
    step: float,
) -> None:
    kernels = forced_kernels(isa)
    set_threads(kernels, 2)
    logits = make_logits(len(rows), vocab, seed, spread, dtype, step)
    assert choose(kernels, logits, rows) == specified(logits, rows)


@every_isa
@some
@given(rows=rows_strategy, seed=st.integers(0, 10_000), banned=st.sampled_from([0.5, 0.99, 1.0]))
def test_tokens_at_minus_infinity_are_never_drawn(
    isa: str, rows: list[SamplingRow], seed: int, banned: float
) -> None:
    """As a grammar masks them; with nothing left, the first token is the answer, as in the specification."""
    logits = make_logits(len(rows), 300, seed, 3.0, torch.float32, 0.0)
    mask = torch.rand(logits.shape, generator=torch.Generator().manual_seed(seed)) < banned
    logits = logits.masked_fill(mask, -math.inf)
    chosen = choose(forced_kernels(isa), logits, rows)
    assert chosen == specified(logits, rows)
    for row, token in enumerate(chosen):
        assert not mask[row, token] or mask[row].all()


@every_isa
@some
@given(rows=rows_strategy, seed=st.integers(0, 10_000), dtype=dtypes)
def test_a_row_draws_the_same_alone_and_on_one_thread(
    isa: str, rows: list[SamplingRow], seed: int, dtype: torch.dtype
) -> None:
    kernels = forced_kernels(isa)
    logits = make_logits(len(rows), 777, seed, 3.0, dtype, 0.0)
    set_threads(kernels, 2)
    together = choose(kernels, logits, rows)
    set_threads(kernels, 1)
    assert [choose(kernels, logits[i : i + 1], [row])[0] for i, row in enumerate(rows)] == together


@every_isa
@pytest.mark.parametrize("spread", [1.0, 4.0])
def test_a_large_vocabulary_with_padding_columns(isa: str, spread: float) -> None:
    """Long runs of the vectorised loops; columns beyond the vocabulary are not looked at."""
    kernels = forced_kernels(isa)
    set_threads(kernels, 2)
    truncations: list[dict[str, Any]] = [
        {},
        {"top_k": 50},
        {"top_p": 0.9},
        {"top_k": 40, "top_p": 0.95, "min_p": 0.05},
        {"top_p": 0.9999},
        {"top_k": 30_000, "top_p": 0.5},
    ]
    rows = [
        SamplingRow(SamplingParams(seed=i, **truncation), (), (0,) * i)
        for i, truncation in enumerate(truncations * 4)
    ]
    padded = make_logits(len(rows), 40_064, 0, spread, torch.float32, 0.0)
    padded[:, 40_000:] = 1e9
    logits = padded[:, :40_000]
    assert choose(kernels, logits, rows) == specified(logits, rows)


@every_isa
@some
@given(
    seed=st.integers(0, 10_000),
    row=st.builds(
        SamplingRow, params=params_strategy, prompt_token_ids=st.just(()), output_token_ids=st.just(())
    ),
)
def test_scores_that_round_to_the_same_number_go_to_the_lowest_id(
    isa: str, seed: int, row: SamplingRow
) -> None:
    """At 2**25 neighbouring floats are 4 apart, as are the logits: noise often makes two scores equal."""
    steps = torch.randint(0, 4, (1, 100), generator=torch.Generator().manual_seed(seed))
    logits = 2.0**25 + 4.0 * steps
    row = row._replace(params=msgspec.structs.replace(row.params, temperature=1.0))
    assert choose(forced_kernels(isa), logits, [row]) == specified(logits, [row])


@every_isa
@pytest.mark.parametrize("temperature", [0.0, 1e-6])
def test_of_equal_logits_the_first_wins(isa: str, temperature: float) -> None:
    """Wherever the two largest stand: in the same lane of a vector, or the first in a later one."""
    pairs = [(first, second) for second in range(40) for first in range(second)]
    logits = torch.zeros(len(pairs), 40)
    for row, pair in enumerate(pairs):
        logits[row, list(pair)] = 1
    draws = [Draw(temperature, 1 if temperature else 0, 1.0, 0.0, 5)] * len(pairs)
    chosen = forced_kernels(isa).sample(logits, draws).tolist()
    if temperature:  # noise decides between them, and nothing else is drawn
        assert all(token in pair for token, pair in zip(chosen, pairs, strict=True))
    else:
        assert chosen == [first for first, _ in pairs]


@every_isa
def test_draws_follow_the_distribution(isa: str) -> None:
    """20,000 draws from four tokens: shares within 4 standard deviations."""
    shares = torch.tensor([0.5, 0.3, 0.15, 0.05])
    count = 20_000
    logits = shares.log().expand(count, 4)
    draws = [Draw(1.0, 0, 1.0, 0.0, noise.row_key(7, position)) for position in range(count)]
    found = torch.bincount(forced_kernels(isa).sample(logits, draws), minlength=4) / count
    assert ((found - shares).abs() < 4 * (shares * (1 - shares) / count).sqrt()).all()


@every_isa
@some
@given(
    seed=st.integers(0, 10_000), vocab=vocabularies, dtype=dtypes, spread=st.sampled_from([0.0, 3.0, 50.0])
)
def test_log_sum_exp(isa: str, seed: int, vocab: int, dtype: torch.dtype, spread: float) -> None:
    logits = make_logits(3, vocab, seed, spread, dtype, 0.0)
    found = forced_kernels(isa).log_sum_exp(logits)
    torch.testing.assert_close(found, logits.float().logsumexp(-1), atol=1e-5, rtol=1e-6)


@every_isa
@some
@given(
    seed=st.integers(0, 10_000), vocab=vocabularies, dtype=dtypes, alternatives=st.sampled_from([0, 1, 5, 20])
)
def test_logprobs_are_those_of_the_reference(
    isa: str, seed: int, vocab: int, dtype: torch.dtype, alternatives: int
) -> None:
    """Among rows that ask for none or for other numbers of them; and each row's own, to the last bit."""
    logits = make_logits(4, vocab, seed, 3.0, dtype, 0.0)
    params = [
        SamplingParams(temperature=0.0, logprobs=count) for count in (alternatives, None, 2, alternatives)
    ]
    rows = [SamplingRow(settings, (), ()) for settings in params]
    sampler = Sampler(vocab, forced_kernels(isa))
    found = sampler.sample(logits, rows)
    expected = Sampler(vocab, ReferenceKernels()).sample(logits, rows)
    for one, other in zip(found, expected, strict=True):
        assert (one.logprobs is None) == (other.logprobs is None)
        if one.logprobs and other.logprobs:
            assert one.logprobs.top_token_ids == other.logprobs.top_token_ids
            assert one.logprobs.logprob == pytest.approx(other.logprobs.logprob, abs=1e-5)
            assert one.logprobs.top_logprobs == pytest.approx(other.logprobs.top_logprobs, abs=1e-5)
    assert found == [sampler.sample(logits[i : i + 1], [row])[0] for i, row in enumerate(rows)]


def test_the_bound_is_the_specified_one() -> None:
    """A draw that lands just inside and never outside: every token at or above the bound occurs, no other."""
    kernels = forced_kernels("plain")
    logits = make_logits(1, 40, 3, 1.0, torch.float32, 0.0)
    draws = [Draw(1.0, 12, 0.9, 0.0, noise.row_key(0, i)) for i in range(4000)]
    bound = truncation.lower_bound(logits[0], draws[0])
    seen = set(kernels.sample(logits.expand(4000, 40), draws).tolist())
    assert seen == set((logits[0] >= bound).nonzero().flatten().tolist())
