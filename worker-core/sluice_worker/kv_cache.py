"""The tensors behind the block pool: one pair of keys and values per layer, and how many blocks fit."""

from __future__ import annotations

import torch

from sluice_worker.config import EngineConfig, ModelConfig
from sluice_worker.errors import ConfigError
from sluice_worker.kernels.interface import SCALE_BYTES, CacheShape, Kernels, LayerCache

DEFAULT_SHARE = 0.4
"""Of the memory left beside the weights, when no budget was given."""


class KVCache:
    """Keys and values of all layers. Block `b` of every layer belongs to block id `b` of the pool."""

    def __init__(
        self,
        config: ModelConfig,
        kernels: Kernels,
        *,
        num_blocks: int,
        block_size: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        """`dtype` of what is stored: that of the activations, or int8."""
        shape = CacheShape(num_blocks, block_size, config.num_kv_heads, config.head_dim)
        self.block_size = block_size
        self.num_blocks = num_blocks
        self.layers: list[LayerCache] = [
            kernels.allocate_cache(shape, dtype, device) for _ in range(config.num_layers)
        ]


def bytes_per_token(config: ModelConfig, dtype: torch.dtype) -> int:
    """Of a cache that stores `dtype`, in all layers."""
    return config.kv_bytes_per_token(dtype.itemsize, SCALE_BYTES if dtype == torch.int8 else 0)


def count_blocks(
    config: EngineConfig, *, block_size: int, bytes_per_token: int, max_model_len: int, free_bytes: int
) -> int:
    """How many blocks to allocate: as asked, or what the budget holds, or what could ever be used.

    `free_bytes` is the device's memory left beside the weights. Raises `ConfigError` when the budget does not
    hold a single block.
    """
    if config.num_kv_blocks is not None:
        return config.num_kv_blocks
    block_bytes = block_size * bytes_per_token
    budget = config.kv_cache_bytes or int(free_bytes * DEFAULT_SHARE)
    usable = config.max_num_seqs * -(-max_model_len // block_size)
    blocks = min(usable, budget // block_bytes)
    if blocks < 1:
        raise ConfigError(
            f"{budget} bytes are left for the KV cache, but one block of {block_size} tokens takes "
            f"{block_bytes}. Give a larger kv_cache_bytes or a smaller block_size."
        )
    return blocks
