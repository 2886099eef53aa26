"""float32 greedy tokens are identical to transformers' `generate`, whatever way the engine computes them.

Every case compares 20 prompts x 64 tokens, token by token. Nothing here may be loosened: a single differing
token means a wrong mask, position, block or weight.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import FAMILIES, VOCAB_SIZE, SaveModel

from sluice_worker.config import EngineConfig
from sluice_worker.engine import Engine
from sluice_worker.sampling_params import SamplingParams

NEW_TOKENS = 64
GREEDY = SamplingParams(temperature=0, max_tokens=NEW_TOKENS)


LENGTHS = (1, 13, 37, 64, 147)


def make_prompts() -> list[list[int]]:
    """Four prompts of each length; every second one that is long enough starts with the same 40 tokens."""
    generator = torch.Generator().manual_seed(3)
    shared = torch.randint(0, VOCAB_SIZE, (40,), generator=generator).tolist()
    prompts = [
        torch.randint(0, VOCAB_SIZE, (n,), generator=generator).tolist() for n in LENGTHS for _ in range(4)
    ]
    return [shared + p[40:] if i % 2 and len(p) > 40 else p for i, p in enumerate(prompts)]


PROMPTS = make_prompts()


def generate_with_transformers(model: Any) -> tuple[list[list[int]], float]:
    """The reference tokens of all prompts, and the smallest lead that a chosen token had.

    Prompts of one length share a batch, so nothing is padded.
    """
    tokens: list[list[int]] = []
    leads: list[float] = []
    for first in range(0, len(PROMPTS), 4):
        prompts = torch.tensor(PROMPTS[first : first + 4])
        out = model.generate(
            prompts,
            attention_mask=torch.ones_like(prompts),
            do_sample=False,
            max_new_tokens=NEW_TOKENS,
            pad_token_id=0,
            output_logits=True,
            return_dict_in_generate=True,
        )
        best = torch.cat(out.logits).topk(2).values
        leads.append(float((best[:, 0] - best[:, 1]).min()))
        tokens += out.sequences[:, prompts.shape[1] :].tolist()
    return tokens, min(leads)


@pytest.fixture(scope="module")
def reference(save_model: SaveModel) -> dict[str, list[list[int]]]:
    """transformers' tokens, by family."""
    tokens = {}
    for family in FAMILIES:
        model, _ = save_model(family)
        tokens[family], lead = generate_with_transformers(model)
        # A tie would be decided by rounding, and prove nothing: such a random model needs another seed.
        assert lead > 5e-4, family
    return tokens


def engine(folder: Path, **settings: Any) -> Engine:
    return Engine(EngineConfig(model=str(folder), dtype="float32", block_size=8, **settings))


def generate(engine: Engine) -> list[list[int]]:
    return [result.token_ids for result in engine.generate(PROMPTS, GREEDY)]


Reference = dict[str, list[list[int]]]
every_family = pytest.mark.parametrize("family", FAMILIES)
every_batch = pytest.mark.parametrize("max_num_seqs", [1, 16])
every_chunk = pytest.mark.parametrize("max_chunk", [7, 512])


@every_family
@every_batch
@every_chunk
def test_same_tokens_without_prefix_cache(
    save_model: SaveModel, reference: Reference, family: str, max_num_seqs: int, max_chunk: int
) -> None:
    _, folder = save_model(family)
    worker = engine(folder, max_num_seqs=max_num_seqs, max_chunk=max_chunk, enable_prefix_caching=False)
    assert generate(worker) == reference[family]
    assert worker.stats().cached_tokens_total == 0


@every_family
@every_chunk
def test_same_tokens_from_prefix_hits(
    save_model: SaveModel, reference: Reference, family: str, max_chunk: int
) -> None:
    _, folder = save_model(family)
    worker = engine(folder, max_num_seqs=16, max_chunk=max_chunk, max_num_batched_tokens=100)
    generate(worker)
    before = worker.stats().cached_tokens_total
    assert generate(worker) == reference[family]
    hits = worker.stats().cached_tokens_total - before
    # Second time round, every full block of every prompt is known, except that one token is always computed.
    assert hits == sum((len(prompt) - 1) // 8 * 8 for prompt in PROMPTS)


@every_family
@every_chunk
@pytest.mark.parametrize("enable_prefix_caching", [True, False])
def test_same_tokens_after_preemption(
    save_model: SaveModel, reference: Reference, family: str, max_chunk: int, enable_prefix_caching: bool
) -> None:
    _, folder = save_model(family)
    worker = engine(
        folder,
        max_num_seqs=16,
        max_chunk=max_chunk,
        num_kv_blocks=40,
        enable_prefix_caching=enable_prefix_caching,
    )
    assert generate(worker) == reference[family]
    assert worker.stats().preemptions_total > 5
    worker.check_integrity()
