"""bfloat16 against transformers in bfloat16: equal within rounding, and closer to float32 than to noise.

Rounding differs between two correct implementations, so tokens may part where two candidates are nearly tied.
The rule: where the best tokens differ, each side has the other's among its five best and the lead is small;
and on the same text, log-probabilities agree on average.
"""

from __future__ import annotations

import pytest
import torch
from tiny_models import FAMILIES, VOCAB_SIZE, SaveModel

from sluice_worker.config import EngineConfig
from sluice_worker.engine import Engine
from sluice_worker.outputs import TokenLogprobs
from sluice_worker.sampling_params import SamplingParams

NEW_TOKENS = 24
MEAN_ERROR = 0.02
"""Of log-probabilities along one text, in nats."""


def prompts() -> list[list[int]]:
    generator = torch.Generator().manual_seed(5)
    return [torch.randint(0, VOCAB_SIZE, (n,), generator=generator).tolist() for n in (5, 31, 60, 90)]


@pytest.mark.parametrize("family", FAMILIES)
def test_log_probabilities_and_near_ties(save_model: SaveModel, family: str) -> None:
    # Ordinary initial weights: the wide ones of the equality tests amplify rounding beyond any real model's.
    model, folder = save_model(family, initializer_range=0.06, dtype="bfloat16")
    model.to(torch.bfloat16)
    engine = Engine(EngineConfig(model=str(folder), dtype="bfloat16", block_size=8, num_kv_blocks=64))
    assert engine.model_info().dtype == "bfloat16"
    params = SamplingParams(temperature=0, max_tokens=NEW_TOKENS, logprobs=5)
    errors: list[float] = []
    for prompt, result in zip(prompts(), engine.generate(prompts(), params), strict=True):
        with torch.inference_mode():
            logits = model(torch.tensor([[*prompt, *result.token_ids]])).logits[0, len(prompt) - 1 : -1]
        theirs = torch.log_softmax(logits.float(), dim=-1)
        for row, token, entry in zip(theirs, result.token_ids, result.logprobs, strict=True):
            errors.append(abs(float(row[token]) - entry.logprob))
            check_near_tie(row, token, entry)
    assert sum(errors) / len(errors) < MEAN_ERROR


def check_near_tie(theirs: torch.Tensor, ours: int, entry: TokenLogprobs) -> None:
    """Where the best token differs, both sides must have found the two nearly equal."""
    best = int(theirs.argmax())
    if best != ours:
        assert ours in theirs.topk(5).indices.tolist()
        assert best in entry.top_token_ids
        assert float(theirs[best] - theirs[ours]) < 0.1
