"""How far one backend's predictions are from another's, from the alternatives that both return.

An API returns the most likely tokens only, not the distribution. The tokens that both return are kept apart
and everything else is one bucket, the *remainder*. Putting outcomes together can only lower the
Kullback-Leibler divergence (the log sum inequality; Cover and Thomas, Elements of Information Theory, 2.7),
so what is computed is a **lower bound** of the true one, the closer the less probability is in the remainder.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from random import Random

import msgspec

from sluice_bench.quality.perplexity import Windows, mean_per_token
from sluice_bench.quality.prompt_logprobs import Prediction
from sluice_bench.stats.elementary import exp, ln
from sluice_bench.stats.estimate import Estimate
from sluice_bench.stats.intervals import bootstrap_interval

LEAST_REMAINDER = 1e-6
"""Sums of rounded probabilities are exact to about this; a remainder below it is taken as this much, which
lowers the divergence and so leaves it a lower bound."""


class NotComparable(Exception):
    """The two backends did not read the same tokens; the message says so."""


class Divergence(msgspec.Struct, frozen=True, kw_only=True):
    """Of a backend from the reference, over the same tokens."""

    kl_lower_bound: Estimate
    """Nats per token, KL(reference || backend); the true value is this or more."""
    remainder: float
    """Mean probability, in the reference, of what is not among the tokens that both returned."""
    same_top_token: Estimate
    """Share of tokens at which both find the same one most likely."""
    alternatives: int
    """How many were asked for."""
    tokens: int


def diverge(reference: Windows, other: Windows, alternatives: int, source: Random) -> Divergence:
    """Compare two readings of the same windows. Raises `NotComparable` when they are not the same."""
    pairs = [_pairs(ours, theirs) for ours, theirs in zip(reference, other, strict=True)]
    divergences, remainders, agreed = [], [], []
    for window in pairs:
        found = [divergence_at(ours.alternatives, theirs.alternatives) for ours, theirs in window]
        same = sum(_top(ours) == _top(theirs) for ours, theirs in window)
        divergences.append((math.fsum(kl for kl, _ in found), len(found)))
        remainders.append((math.fsum(rest for _, rest in found), len(found)))
        agreed.append((float(same), len(found)))
    return Divergence(
        kl_lower_bound=bootstrap_interval(divergences, mean_per_token, source),
        remainder=mean_per_token(remainders),
        same_top_token=bootstrap_interval(agreed, mean_per_token, source),
        alternatives=alternatives,
        tokens=sum(count for _, count in agreed),
    )


def divergence_at(reference: Mapping[str, float], other: Mapping[str, float]) -> tuple[float, float]:
    """(lower bound of KL in nats, the reference's remainder) at one token, from log-probabilities."""
    shared = sorted(reference.keys() & other.keys())
    p = [exp(reference[token]) for token in shared]
    q = [exp(other[token]) for token in shared]
    p_rest = max(0.0, 1 - math.fsum(p))
    q_rest = max(LEAST_REMAINDER, 1 - math.fsum(q))
    terms = [p_token * (reference[token] - other[token]) for p_token, token in zip(p, shared, strict=True)]
    if p_rest > 0:
        terms.append(p_rest * ln(p_rest / q_rest))
    return max(0.0, math.fsum(terms)), p_rest


def _pairs(
    reference: Sequence[Prediction], other: Sequence[Prediction]
) -> list[tuple[Prediction, Prediction]]:
    if [prediction.token for prediction in reference] != [prediction.token for prediction in other]:
        raise NotComparable(
            "The two backends cut the text into different tokens, so their predictions cannot be compared; "
            "compare variants of one model."
        )
    return list(zip(reference, other, strict=True))


def _top(prediction: Prediction) -> str:
    """The most likely token; of two as likely, the first by name, so that both sides choose alike."""
    return max(sorted(prediction.alternatives), key=lambda token: prediction.alternatives[token])
