"""What a loaded model thinks of texts that are given to it: logits of every token, for tests."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sluice_worker.batch import Batch, QueryRange
from sluice_worker.kv_cache import KVCache
from sluice_worker.loading.loader import LoadedModel


@torch.inference_mode()
def log_probabilities(loaded: LoadedModel, token_ids: Sequence[int]) -> Tensor:
    """float32 [tokens, vocab]: of what follows each token."""
    length, size = len(token_ids), loaded.block_size
    blocks = list(range(-(-length // size)))
    cache = KVCache(
        loaded.config,
        loaded.kernels,
        num_blocks=len(blocks),
        block_size=size,
        dtype=loaded.dtype,
        device=loaded.device,
    )
    rows = torch.arange(length)
    batch = Batch(
        torch.tensor(token_ids), rows, rows, [QueryRange(0, length, length, blocks)], rows, sampled=[]
    )
    return loaded.model.forward(batch, cache).float().log_softmax(-1)


def perplexity(loaded: LoadedModel, texts: Sequence[Sequence[int]]) -> float:
    """Per token, of all tokens but each text's first."""
    nats = [-log_probabilities(loaded, ids)[range(len(ids) - 1), list(ids[1:])].sum().item() for ids in texts]
    return math.exp(sum(nats) / sum(len(ids) - 1 for ids in texts))
