"""Log-probabilities of the model's own distribution, before temperature, penalties and truncation."""

from __future__ import annotations

import torch
from torch import Tensor

from sluice_worker.outputs import TokenLogprobs


def token_logprobs(logits: Tensor, token_id: int, num_alternatives: int) -> TokenLogprobs:
    """The chosen token's log-probability, and those of the `num_alternatives` most likely tokens, best first.

    `logits` is the raw row, [vocab]; a vocabulary with fewer tokens than asked for gives them all.
    """
    logprobs = torch.log_softmax(logits.float(), dim=-1)
    chosen = float(logprobs[token_id].item())
    if num_alternatives == 0:
        return TokenLogprobs(chosen, [], [])
    values, ids = torch.topk(logprobs, min(num_alternatives, logprobs.numel()), sorted=True)
    return TokenLogprobs(chosen, ids.tolist(), values.tolist())
