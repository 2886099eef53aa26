"""Computes one step: lay out the batch, run the model, sample.

The runner holds the tensors (model, cache); it knows nothing of queues, budgets or finish rules.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sluice_worker.batch import Batch, build_batch
from sluice_worker.kv_cache import KVCache
from sluice_worker.models.registry import Model
from sluice_worker.outputs import TokenLogprobs
from sluice_worker.request import Request
from sluice_worker.sampling.row import SampledToken, SamplingRow
from sluice_worker.sampling.sampler import Sampler
from sluice_worker.scheduler import ScheduledTokens

SCORED_ROWS = 64
"""Rows of prompts whose logits exist at once: with a vocabulary of 152,000 they take 39 MB."""


class StepResult(NamedTuple):
    """What a step gave its requests."""

    sampled: list[tuple[Request, SampledToken]]
    """The next token of each request that has all its tokens computed."""
    scored: list[tuple[Request, list[TokenLogprobs]]]
    """The next log-probabilities of requests that want those of their prompts; a request may come again."""


class _ScoredPiece(NamedTuple):
    """Some neighbouring rows of one prompt."""

    request: Request
    logits: Tensor
    """[rows, vocab], at most `SCORED_ROWS` rows."""
    token_ids: list[int]
    """The token after each row's own."""


class Runner:
    """A model with its cache and its sampler, on one device."""

    def __init__(self, model: Model, cache: KVCache, sampler: Sampler, device: torch.device) -> None:
        self._model = model
        self._cache = cache
        self._sampler = sampler
        self._device = device

    @torch.inference_mode()
    def run(self, step: Sequence[ScheduledTokens]) -> StepResult:
        """Compute the tokens of a step."""
        batch = build_batch(step, self._cache.block_size, self._device)
        if not batch.scored:
            return StepResult(self._sample(batch, self._model.forward(batch, self._cache)), [])
        hidden = self._hidden(batch)
        scored = [
            (piece.request, self._sampler.score(piece.logits, piece.token_ids, piece.request.params))
            for piece in self._scored_pieces(batch, hidden)
        ]
        logits = self._model.logits(hidden[: len(batch.sampled)])
        return StepResult(self._sample(batch, logits), scored)

    @torch.inference_mode()
    def prompt_logits(self, step: Sequence[ScheduledTokens]) -> Iterator[Tensor]:
        """Compute a step of requests that want log-probabilities of their prompts, and give the logits.

        They come in the order of the tokens, a piece of at most `SCORED_ROWS` rows at a time: [rows, vocab].
        """
        batch = build_batch(step, self._cache.block_size, self._device)
        for piece in self._scored_pieces(batch, self._hidden(batch)):
            yield self._sampler.real_columns(piece.logits)

    def _hidden(self, batch: Batch) -> Tensor:
        """What the output layer reads of the S rows to sample, then of the R to score: [S + R, hidden]."""
        ranges = [torch.arange(start, start + len(token_ids)) for _, start, token_ids in batch.scored]
        rows = torch.cat([batch.sample_rows, *(rows.to(self._device) for rows in ranges)])
        return self._model.hidden(batch, self._cache, rows)

    def _scored_pieces(self, batch: Batch, hidden: Tensor) -> Iterator[_ScoredPiece]:
        row = len(batch.sampled)
        for request, _, token_ids in batch.scored:
            for first in range(0, len(token_ids), SCORED_ROWS):
                following = token_ids[first : first + SCORED_ROWS]
                logits = self._model.logits(hidden[row : row + len(following)])
                yield _ScoredPiece(request, logits, following)
                row += len(following)

    def _sample(self, batch: Batch, logits: Tensor) -> list[tuple[Request, SampledToken]]:
        if not batch.sampled:
            return []
        rows = [
            SamplingRow(request.params, request.prompt_token_ids, request.output_token_ids)
            for request in batch.sampled
        ]
        return list(zip(batch.sampled, self._sampler.sample(logits, rows), strict=True))
