"""Choosing a token for each row of logits, in plain torch: the rules that every backend's `sample` keeps.

Invariant: a row's token depends on its own logits and its own draw only. Noise is keyed by (seed, position,
token id), see `noise`; whatever is summed over the vocabulary is summed one row at a time, so that a row's
rounding does not change with its neighbours.

Noise over a whole vocabulary is the dearest part, so rows are first cut to the tokens that can still win:
those above the truncation bound, and among them those that could beat the favourite with the largest noise
there is. The second cut drops nothing that could have been drawn.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sluice_worker.kernels.interface import Draw
from sluice_worker.sampling import noise, truncation

_ROUNDING = 1e-3
"""Slack on the second cut, far above float32's rounding of a score."""


def choose(logits: Tensor, draws: Sequence[Draw]) -> Tensor:
    """Token ids, int64 [rows], for `logits` [rows, vocab] of any float type, on any device."""
    chosen = logits.argmax(dim=-1)
    drawn = [i for i, draw in enumerate(draws) if draw.temperature > 0]
    if drawn:
        chosen[drawn] = _draw(logits[drawn].float(), [draws[i] for i in drawn])
    return chosen


def _draw(logits: Tensor, draws: Sequence[Draw]) -> Tensor:
    """Draw from the tempered, truncated distributions (Gumbel-max). `logits` is float32 [rows, vocab]."""
    device = logits.device
    scaled = logits / torch.tensor([[draw.temperature] for draw in draws], device=device)
    keys = torch.tensor([draw.key for draw in draws], device=device)
    bounds = torch.maximum(_truncation_bounds(scaled, draws), _noise_bounds(scaled, keys))
    row_index, token_id = (scaled >= bounds[:, None]).nonzero(as_tuple=True)
    scores = torch.full_like(scaled, float("-inf"))
    scores[row_index, token_id] = scaled[row_index, token_id] + noise.gumbel(keys[row_index], token_id)
    return scores.argmax(dim=-1)


def _truncation_bounds(scaled: Tensor, draws: Sequence[Draw]) -> Tensor:
    bounds = [
        truncation.lower_bound(scaled[i], draw) if truncation.truncates(draw) else float("-inf")
        for i, draw in enumerate(draws)
    ]
    return torch.tensor(bounds, device=scaled.device)


def _noise_bounds(scaled: Tensor, keys: Tensor) -> Tensor:
    """Below these logits no noise suffices to beat the most likely token with the noise it has."""
    favourite = scaled.max(dim=-1)
    return favourite.values + noise.gumbel(keys, favourite.indices) - noise.MAX_GUMBEL - _ROUNDING
