"""Changes to a row's logits before a token is chosen: penalties, biases and forbidden stop tokens.

Order: repetition penalty, presence and frequency penalty, logit bias, then the ban on stop tokens, so that
nothing can lift the ban. Log-probabilities are reported from the logits as they were before all of this.

Sources: repetition penalty, Keskar et al., "CTRL" (2019), over prompt and output; presence and frequency
penalty, OpenAI's API reference, over output only.
"""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor

from sluice_worker.sampling.row import SamplingRow


def changes_logits(row: SamplingRow) -> bool:
    """Whether `process` would change this row's logits at its current position."""
    params = row.params
    return bool(
        params.repetition_penalty != 1.0
        or (row.output_token_ids and (params.presence_penalty or params.frequency_penalty))
        or params.logit_bias
        or _forbids_stop(row)
    )


def process(logits: Tensor, row: SamplingRow) -> None:
    """Apply the row's processors in place. `logits` is float32 [vocab]."""
    params = row.params
    if params.repetition_penalty != 1.0:
        _penalize_repetition(logits, row)
    if row.output_token_ids and (params.presence_penalty or params.frequency_penalty):
        _penalize_counts(logits, row)
    if params.logit_bias:
        _add(logits, list(params.logit_bias), list(params.logit_bias.values()))
    if _forbids_stop(row):
        stop = torch.tensor(params.stop_token_ids, device=logits.device)
        logits.index_fill_(0, stop, float("-inf"))


def _forbids_stop(row: SamplingRow) -> bool:
    return bool(row.params.stop_token_ids) and len(row.output_token_ids) < row.params.min_tokens


def _penalize_repetition(logits: Tensor, row: SamplingRow) -> None:
    seen = {*row.prompt_token_ids, *row.output_token_ids}
    if not seen:
        return
    ids = torch.tensor(list(seen), device=logits.device)
    values = logits[ids]
    penalty = row.params.repetition_penalty
    logits[ids] = torch.where(values > 0, values / penalty, values * penalty)


def _penalize_counts(logits: Tensor, row: SamplingRow) -> None:
    counts = Counter(row.output_token_ids)
    params = row.params
    penalties = [-(params.presence_penalty + params.frequency_penalty * count) for count in counts.values()]
    _add(logits, list(counts), penalties)


def _add(logits: Tensor, token_ids: list[int], values: list[float]) -> None:
    ids = torch.tensor(token_ids, device=logits.device)
    logits.index_add_(0, ids, torch.tensor(values, dtype=logits.dtype, device=logits.device))
