"""The slow twin: a sampler in plain Python, one loop over the vocabulary after another."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from cpu_variants import ISAS, forced_kernels
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice_worker.kernels.reference import ReferenceKernels
from sluice_worker.sampling import Sampler, SamplingRow
from sluice_worker.sampling_params import SamplingParams

MASK = 2**64 - 1


def naive_uniform(seed: int, position: int, token_id: int) -> float:
    def mix(z: int) -> int:
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return z ^ (z >> 31)

    key = mix((mix((seed + 0x9E3779B97F4A7C15) & MASK) + position) & MASK)
    bits = mix((key + (token_id + 1) * 0x9E3779B97F4A7C15) & MASK) >> 32
    return (bits + 0.5) / 2**32


def naive_processed(logits: list[float], row: SamplingRow) -> list[float]:
    params, output = row.params, list(row.output_token_ids)
    values = [np.float32(value) for value in logits]
    seen = {*row.prompt_token_ids, *output}
    for token_id in range(len(values)):
        if token_id in seen and params.repetition_penalty != 1.0:
            penalty = np.float32(params.repetition_penalty)
            values[token_id] = (
                values[token_id] / penalty if values[token_id] > 0 else values[token_id] * penalty
            )
        if token_id in output:
            values[token_id] -= np.float32(
                params.presence_penalty + params.frequency_penalty * output.count(token_id)
            )
        if token_id in params.logit_bias:
            values[token_id] += np.float32(params.logit_bias[token_id])
        if token_id in params.stop_token_ids and len(output) < params.min_tokens:
            values[token_id] = np.float32(-np.inf)
    return [float(value) for value in values]


def naive_kept(scaled: list[float], params: SamplingParams) -> list[int]:
    kept = list(range(len(scaled)))
    if params.top_k:
        kept = [i for i in kept if sum(other > scaled[i] for other in scaled) < params.top_k]
    largest = max(scaled)
    mass = {i: math.exp(scaled[i] - largest) for i in kept}
    total = math.fsum(mass.values())
    if params.top_p < 1.0:
        kept = [
            i
            for i in kept
            if math.fsum(m for j, m in mass.items() if scaled[j] > scaled[i]) / total < params.top_p
        ]
    if params.min_p > 0.0:
        kept = [i for i in kept if scaled[i] >= np.float32(largest + math.log(params.min_p))]
    return kept


def naive_sample(logits: list[float], row: SamplingRow) -> int:
    processed = naive_processed(logits, row)
    if row.params.temperature == 0.0:
        return processed.index(max(processed))
    scaled = [float(np.float32(value) / np.float32(row.params.temperature)) for value in processed]
    position = len(row.output_token_ids)

    def score(token_id: int) -> float:
        return scaled[token_id] - math.log(-math.log(naive_uniform(row.params.seed, position, token_id)))

    return max(naive_kept(scaled, row.params), key=score)


VOCAB = 150
BACKENDS = ("reference", *ISAS)


def make_sampler(backend: str) -> Sampler:
    return Sampler(VOCAB, ReferenceKernels() if backend == "reference" else forced_kernels(backend))


token_ids = st.integers(0, VOCAB - 1)

params_strategy = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 0.1, 0.7, 1.0, 2.0]),
    top_k=st.sampled_from([0, 1, 2, 40, 1000]),
    top_p=st.sampled_from([1.0, 0.99, 0.7, 0.31, 0.001]),
    min_p=st.sampled_from([0.0, 0.003, 0.2, 1.0]),
    seed=st.integers(-(2**63), 2**64 - 1),
    repetition_penalty=st.sampled_from([1.0, 1.3, 0.8]),
    presence_penalty=st.sampled_from([0.0, 1.5, -2.0]),
    frequency_penalty=st.sampled_from([0.0, 0.3, -0.7]),
    logit_bias=st.dictionaries(token_ids, st.sampled_from([-100.0, 5.0, 100.0]), max_size=3),
    min_tokens=st.integers(0, 3),
    stop_token_ids=st.lists(token_ids, max_size=3).map(tuple),
)
rows_strategy = st.lists(
    st.builds(
        SamplingRow,
        params=params_strategy,
        prompt_token_ids=st.lists(token_ids, max_size=5),
        output_token_ids=st.lists(token_ids, max_size=5),
    ),
    min_size=1,
    max_size=5,
)


@pytest.mark.parametrize("backend", BACKENDS)
@given(rows=rows_strategy, shape_seed=st.integers(0, 10_000), spread=st.sampled_from([0.0, 0.5, 3.0, 20.0]))
@settings(max_examples=200, deadline=None)
def test_agrees_with_the_naive_sampler_token_for_token(
    backend: str, rows: list[SamplingRow], shape_seed: int, spread: float
) -> None:
    generator = torch.Generator().manual_seed(shape_seed)
    sampler = make_sampler(backend)
    # Rounded to quarters, so that equal logits are common.
    logits = (torch.randn(len(rows), VOCAB, generator=generator) * spread * 4).round() / 4

    sampled = sampler.sample(logits, rows)

    expected = [naive_sample(logits[i].tolist(), row) for i, row in enumerate(rows)]
    assert [token.token_id for token in sampled] == expected


@pytest.mark.parametrize("backend", BACKENDS)
@given(rows=rows_strategy, shape_seed=st.integers(0, 10_000), data=st.data())
@settings(max_examples=100, deadline=None)
def test_a_row_draws_the_same_alone_and_among_others(
    backend: str, rows: list[SamplingRow], shape_seed: int, data: st.DataObject
) -> None:
    logits = torch.randn(len(rows), VOCAB, generator=torch.Generator().manual_seed(shape_seed)) * 3
    sampler = make_sampler(backend)
    order = data.draw(st.permutations(range(len(rows))))

    alone = [sampler.sample(logits[i : i + 1], [row])[0] for i, row in enumerate(rows)]
    together = sampler.sample(logits[order], [rows[i] for i in order])

    assert together == [alone[i] for i in order]
