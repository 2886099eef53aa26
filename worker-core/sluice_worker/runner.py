"""Computes one step: lay out the batch, run the model, sample.

The runner holds the tensors (model, cache); it knows nothing of queues, budgets or finish rules.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sluice_worker.batch import build_batch
from sluice_worker.kv_cache import KVCache
from sluice_worker.models.registry import Model
from sluice_worker.request import Request
from sluice_worker.sampling.row import SampledToken, SamplingRow
from sluice_worker.sampling.sampler import Sampler
from sluice_worker.scheduler import ScheduledTokens


class Runner:
    """A model with its cache and its sampler, on one device."""

    def __init__(self, model: Model, cache: KVCache, sampler: Sampler, device: torch.device) -> None:
        self._model = model
        self._cache = cache
        self._sampler = sampler
        self._device = device

    @torch.inference_mode()
    def run(self, step: Sequence[ScheduledTokens]) -> list[tuple[Request, SampledToken]]:
        """Compute the tokens of a step; the next token of each request that has all its tokens computed."""
        batch = build_batch(step, self._cache.block_size, self._device)
        logits = self._model.forward(batch, self._cache)
        rows = [
            SamplingRow(request.params, request.prompt_token_ids, request.output_token_ids)
            for request in batch.sampled
        ]
        sampled = self._sampler.sample(logits, rows) if rows else []
        return list(zip(batch.sampled, sampled, strict=True))
