"""The flat tensors of one step: every request's next tokens, end to end, with no padding and no phases.

`build_batch` is the only place where a token's KV slot is chosen:
`block_ids[position // block_size] * block_size + position % block_size`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sluice_worker.request import Request
from sluice_worker.scheduler import ScheduledTokens


class QueryRange(NamedTuple):
    """The rows of one request in the flat batch, and the context they attend to."""

    start: int
    """First row."""
    length: int
    """Rows: tokens computed in this step."""
    context_length: int
    """Tokens in the KV cache once the step has written its own; the last row sees all of them."""
    block_ids: list[int]
    """Blocks of the whole context, in order."""


class ScoredRange(NamedTuple):
    """Tokens of a prompt whose log-probabilities are wanted, and the rows that predict them."""

    request: Request
    start: int
    """First row; the others follow it."""
    token_ids: list[int]
    """The token after each row's own."""


class Batch(NamedTuple):
    """One step for the model. T rows in all, S of them sampled."""

    token_ids: Tensor
    """int64 [T]."""
    positions: Tensor
    """int64 [T], position of each token in its own sequence."""
    slots: Tensor
    """int64 [T], where each token's keys and values go: block id * block size + offset."""
    queries: list[QueryRange]
    """One per request, covering rows `[0, T)` in order."""
    sample_rows: Tensor
    """int64 [S], the last row of each request that is ready to sample."""
    sampled: list[Request]
    """The requests of `sample_rows`, in the same order."""
    scored: Sequence[ScoredRange] = ()
    """One per request that wants log-probabilities of prompt tokens which this step's rows predict."""


def build_batch(step: Sequence[ScheduledTokens], block_size: int, device: torch.device) -> Batch:
    """Lay out a step. The step is not empty, and each request has blocks for its tokens."""
    token_ids: list[int] = []
    positions: list[int] = []
    slots: list[int] = []
    queries: list[QueryRange] = []
    sample_rows: list[int] = []
    sampled: list[Request] = []
    scored: list[ScoredRange] = []
    for entry in step:
        request, length = entry
        first, end = request.num_computed, request.num_computed + length
        blocks = request.block_ids
        queries.append(QueryRange(len(token_ids), length, end, blocks[: -(-end // block_size)]))
        next_scored = request.next_scored
        if next_scored is not None and next_scored < end:
            start = len(token_ids) + next_scored - first
            scored.append(ScoredRange(request, start, request.prompt_token_ids[next_scored + 1 : end + 1]))
        token_ids += request.tokens[first:end]
        positions += range(first, end)
        slots += [blocks[p // block_size] * block_size + p % block_size for p in range(first, end)]
        if entry.samples and request.params.max_tokens:
            sample_rows.append(len(token_ids) - 1)
            sampled.append(request)
    return Batch(
        token_ids=torch.tensor(token_ids, device=device),
        positions=torch.tensor(positions, device=device),
        slots=torch.tensor(slots, device=device),
        queries=queries,
        sample_rows=torch.tensor(sample_rows, dtype=torch.int64, device=device),
        sampled=sampled,
        scored=scored,
    )
