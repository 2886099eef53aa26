"""Log-probabilities of the model's own distribution, before temperature, penalties and truncation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sluice_worker.kernels.interface import Kernels
from sluice_worker.outputs import TokenLogprobs


def token_logprobs(
    kernels: Kernels, logits: Tensor, token_ids: Sequence[int], num_alternatives: int
) -> list[TokenLogprobs]:
    """For each row, the log-probability of its token and of the `num_alternatives` most likely, best first.

    `logits` are raw, [rows, vocab], with one of `token_ids` for each row; a vocabulary with fewer tokens than
    asked for gives them all.
    """
    totals = kernels.log_sum_exp(logits)
    ids = torch.tensor(token_ids, device=logits.device)
    chosen = (logits.gather(1, ids[:, None]).squeeze(1).float() - totals).tolist()
    if num_alternatives == 0:
        return [TokenLogprobs(logprob, [], []) for logprob in chosen]
    values, top_ids = torch.topk(logits, min(num_alternatives, logits.shape[1]), sorted=True)
    alternatives = (values.float() - totals[:, None]).tolist()
    return [TokenLogprobs(*entry) for entry in zip(chosen, top_ids.tolist(), alternatives, strict=True)]
