"""The sampler: a batch of logits in, one token a row out.

Invariant: a row's token depends on its own logits, parameters and history only. Noise is keyed by (seed,
position, token id), see `noise`; whatever is summed over the vocabulary is summed one row at a time, so that
a row's rounding does not change with its neighbours. The sampler keeps no state between calls.

Noise over a whole vocabulary is the dearest part, so rows are first cut to the tokens that can still win:
those above the truncation bound, and among them those that could beat the favourite with the largest noise
there is. The second cut drops nothing that could have been drawn.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sluice_worker.outputs import TokenLogprobs
from sluice_worker.sampling import noise, processors, truncation
from sluice_worker.sampling.logprobs import token_logprobs
from sluice_worker.sampling.row import SampledToken, SamplingRow

_ROUNDING = 1e-3
"""Slack on the second cut, far above float32's rounding of a score."""


class Sampler:
    """Chooses tokens. Stateless, so one instance serves every batch."""

    def __init__(self, vocab_size: int) -> None:
        """`vocab_size`: columns that are real tokens; a model may pad its logits beyond them."""
        self._vocab_size = vocab_size

    def sample(self, logits: Tensor, rows: Sequence[SamplingRow]) -> list[SampledToken]:
        """Choose a token for every row.

        `logits` is [rows, at least vocab_size], any float dtype, on any device; it is not changed.
        Raises `ValueError` when the number of rows differs.
        """
        if logits.shape[0] != len(rows):
            raise ValueError(f"{logits.shape[0]} rows of logits for {len(rows)} sequences")
        if not rows:
            return []
        raw = logits[:, : self._vocab_size]
        token_ids = self._choose(raw, rows).tolist()
        return [
            SampledToken(token_id, _logprobs(raw[i], row, token_id))
            for i, (row, token_id) in enumerate(zip(rows, token_ids, strict=True))
        ]

    def _choose(self, raw: Tensor, rows: Sequence[SamplingRow]) -> Tensor:
        """Token ids, int64 [rows]."""
        processed = _processed(raw, rows)
        chosen = processed.argmax(dim=-1)
        drawn = [i for i, row in enumerate(rows) if not row.is_greedy]
        if drawn:
            chosen[drawn] = _draw(processed[drawn].float(), [rows[i] for i in drawn])
        return chosen


def _logprobs(raw: Tensor, row: SamplingRow, token_id: int) -> TokenLogprobs | None:
    if row.params.logprobs is None:
        return None
    return token_logprobs(raw, token_id, row.params.logprobs)


def _processed(raw: Tensor, rows: Sequence[SamplingRow]) -> Tensor:
    """The logits after processors; `raw` itself when no row has any."""
    changed = [i for i, row in enumerate(rows) if processors.changes_logits(row)]
    if not changed:
        return raw
    processed = raw.to(torch.float32, copy=True)
    for i in changed:
        processors.process(processed[i], rows[i])
    return processed


def _draw(logits: Tensor, rows: Sequence[SamplingRow]) -> Tensor:
    """Draw from the tempered, truncated distributions (Gumbel-max). `logits` is float32 [rows, vocab]."""
    device = logits.device
    scaled = logits / torch.tensor([[row.params.temperature] for row in rows], device=device)
    keys = torch.tensor(
        [noise.row_key(row.params.seed, len(row.output_token_ids)) for row in rows], device=device
    )
    bounds = torch.maximum(_truncation_bounds(scaled, rows), _noise_bounds(scaled, keys))
    row_index, token_id = (scaled >= bounds[:, None]).nonzero(as_tuple=True)
    scores = torch.full_like(scaled, float("-inf"))
    scores[row_index, token_id] = scaled[row_index, token_id] + noise.gumbel(keys[row_index], token_id)
    return scores.argmax(dim=-1)


def _truncation_bounds(scaled: Tensor, rows: Sequence[SamplingRow]) -> Tensor:
    bounds = [
        truncation.lower_bound(scaled[i], row.params) if truncation.truncates(row.params) else float("-inf")
        for i, row in enumerate(rows)
    ]
    return torch.tensor(bounds, device=scaled.device)


def _noise_bounds(scaled: Tensor, keys: Tensor) -> Tensor:
    """Below these logits no noise suffices to beat the most likely token with the noise it has."""
    favourite = scaled.max(dim=-1)
    return favourite.values + noise.gumbel(keys, favourite.indices) - noise.MAX_GUMBEL - _ROUNDING
