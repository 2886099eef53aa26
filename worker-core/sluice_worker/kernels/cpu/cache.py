"""The KV cache of one layer as the C++ kernels want it; the layout is described in `attention.h`."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sluice_worker.errors import ConfigError, UnsupportedModelError
from sluice_worker.kernels.cpu.memory import map_memory
from sluice_worker.kernels.interface import SCALE_BYTES, CacheShape, LayerCache

LANES = 16
"""`kPanelTokens`: head dimensions are padded to a multiple, and panels of keys hold as many tokens."""

MAX_HEAD_DIM = 512
"""`kMaxHeadDim` in `elementwise.h`."""


def allocate_cache(shape: CacheShape, dtype: torch.dtype) -> LayerCache:
    """Zeros of `dtype`, that of the activations or int8.

    Each tensor has pages of its own, huge ones if the system has them, which are given when first written.
    Raises `UnsupportedModelError` or `ConfigError`.
    """
    blocks, block_size, kv_heads, head_dim = shape
    if head_dim % 2 or head_dim > MAX_HEAD_DIM:
        raise UnsupportedModelError(
            f"The CPU kernels need an even head_dim up to {MAX_HEAD_DIM}; this model has {head_dim}."
        )
    if block_size % 2:
        raise ConfigError(f"block_size must be even for the CPU kernels; it is {block_size}.")
    width = -(-head_dim // LANES) * LANES
    if dtype == torch.int8:
        size = (blocks, kv_heads, block_size, width + SCALE_BYTES)
        return LayerCache(_zeros(size, dtype), _zeros(size, dtype))
    pack, panel = 4 // dtype.itemsize, math.gcd(block_size, LANES)
    return LayerCache(
        _zeros((blocks, kv_heads, block_size // panel, width // pack, panel, pack), dtype),
        _zeros((blocks, kv_heads, block_size // pack, width, pack), dtype),
    )


def block_size_of(cache: LayerCache) -> int:
    """Tokens in a block."""
    shape = cache.keys.shape
    return shape[2] if cache.keys.dtype == torch.int8 else shape[2] * shape[4]


def _zeros(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return map_memory(math.prod(shape) * dtype.itemsize).view(dtype).view(shape)
