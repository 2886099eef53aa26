"""Two engines on the same text: how likely each finds it, how far apart they are, what each would write.

Logits of a whole text would not fit into memory, so both engines go through a document side by side, some
rows at a time; what stays are a few numbers a token. Sums over a vocabulary are float32, those over tokens
are Python floats.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import msgspec
import torch
from torch import Tensor

from sluice_worker.engine import Engine
from sluice_worker.quality.samples import Sample
from sluice_worker.sampling_params import SamplingParams


class Divergence(msgspec.Struct, frozen=True, kw_only=True):
    """How another model predicts a text, token by token, beside the reference."""

    reference_nats: list[float]
    """Minus the log-probability of each scored token."""
    nats: list[float]
    """The same by the other model."""
    kl: list[float]
    """Kullback-Leibler divergence of the other's next-token distribution from the reference's, in nats."""
    same_top: list[bool]
    """Whether both find the same token most likely."""


class Agreement(msgspec.Struct, frozen=True, kw_only=True):
    """How far greedy continuations are the same."""

    identical: float
    """Share of prompts with the same continuation, to the last token."""
    common_prefix: float
    """Mean number of tokens before the first that differs."""


def perplexity(nats: Sequence[float]) -> float:
    """`exp` of the mean."""
    return math.exp(math.fsum(nats) / len(nats))


def diverge(
    reference: Engine, other: Engine, samples: Sequence[Sample], progress: Callable[[int], None]
) -> Divergence:
    """Compute all samples with both engines; `progress` is told how many are done."""
    found = Divergence(reference_nats=[], nats=[], kl=[], same_top=[])
    for done, sample in enumerate(samples, start=1):
        row = first = sample.first_scored - 1
        pieces = zip(
            reference.prompt_logits(sample.token_ids, first),
            other.prompt_logits(sample.token_ids, first),
            strict=True,
        )
        for reference_logits, logits in pieces:
            following = sample.token_ids[row + 1 : row + 1 + len(logits)]
            _add(found, reference_logits, logits, torch.tensor(following, device=logits.device))
            row += len(logits)
        progress(done)
    return found


@torch.inference_mode()
def _add(found: Divergence, reference_logits: Tensor, logits: Tensor, following: Tensor) -> None:
    """Add some rows: logits [rows, vocab], `following` int64 [rows]."""
    expected = reference_logits.float().log_softmax(dim=-1)
    given = logits.float().log_softmax(dim=-1)
    rows = torch.arange(len(following), device=following.device)
    found.reference_nats.extend((-expected[rows, following]).tolist())
    found.nats.extend((-given[rows, following]).tolist())
    found.kl.extend((expected.exp() * (expected - given)).sum(dim=-1).tolist())
    found.same_top.extend((expected.argmax(dim=-1) == given.argmax(dim=-1)).tolist())


def continuations(engine: Engine, samples: Sequence[Sample], max_tokens: int) -> list[list[int]]:
    """What the engine writes after the prompt of each sample, greedily, until its end token."""
    params = SamplingParams(
        temperature=0, max_tokens=max_tokens, stop_token_ids=tuple(engine.model_info().eos_token_ids)
    )
    prompts = [sample.token_ids[: sample.prompt_length] for sample in samples]
    return [result.token_ids for result in engine.generate(prompts, params)]


def agree(reference: Sequence[list[int]], other: Sequence[list[int]]) -> Agreement:
    """Compare continuations of the same prompts, of which there is at least one."""
    pairs = list(zip(reference, other, strict=True))
    return Agreement(
        identical=sum(expected == given for expected, given in pairs) / len(pairs),
        common_prefix=sum(_common_prefix(expected, given) for expected, given in pairs) / len(pairs),
    )


def _common_prefix(expected: list[int], given: list[int]) -> int:
    for length, (one, other) in enumerate(zip(expected, given, strict=False)):
        if one != other:
            return length
    return min(len(expected), len(given))
