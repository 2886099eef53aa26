"""Which tokens may be drawn: top-k, top-p and min-p, all as one lower bound on a row's logits.

A bound, not a sorted list, is what makes this cheap and well defined: the largest logits are looked at, not
the whole sorted vocabulary, and equal logits are kept or dropped together, so the answer does not depend on
how a sort breaks ties.

    top-k   keep the k largest, and all that equal the k-th
    top-p   of those, keep a token while the tokens above it hold less than p of the mass
            (Holtzman et al., "The curious case of neural text degeneration", 2019)
    min-p   keep what has at least this share of the most likely token's probability
            (Nguyen et al., "Turning up the heat", 2024)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sluice_worker.kernels.interface import Draw

_FIRST_LOOK = 64
_LOOK_GROWTH = 8


def truncates(draw: Draw) -> bool:
    """Whether any of top-k, top-p and min-p is in use."""
    return draw.top_k > 0 or draw.top_p < 1.0 or draw.min_p > 0.0


def lower_bound(logits: Tensor, draw: Draw) -> float:
    """The smallest logit that may be drawn; the largest one always may.

    `logits` is float32 [vocab], already divided by the temperature.
    """
    bound = -math.inf
    if 0 < draw.top_k < logits.numel():
        bound = torch.topk(logits, draw.top_k, sorted=True).values[-1].item()
    if draw.top_p < 1.0:
        bound = max(bound, _top_p_bound(logits, draw.top_p, bound))
    if draw.min_p > 0.0:
        largest = logits.max().item()
        bound = max(bound, min(largest, largest + math.log(draw.min_p)))
    return bound


def _top_p_bound(logits: Tensor, top_p: float, bound: float) -> float:
    """Look at the largest logits, more of them until they hold `top_p` of the mass at or above `bound`."""
    scaled = logits.double()
    scaled = scaled.masked_fill(scaled < bound, -math.inf)
    log_total = scaled.logsumexp(0)
    looked_at = _FIRST_LOOK
    while True:
        largest = torch.topk(scaled, min(looked_at, scaled.numel()), sorted=True).values
        mass = (largest - log_total).exp().cumsum(0)
        kept = int((mass[:-1] < top_p).sum().item()) + 1
        if kept < largest.numel() or looked_at >= scaled.numel():
            return float(largest[kept - 1].item())
        looked_at *= _LOOK_GROWTH
