"""Grouped-query self-attention over the paged cache."""

from __future__ import annotations

import torch
from torch import Tensor

from sluice_worker.config import ModelConfig
from sluice_worker.kernels.interface import Kernels, LayerCache, QKNorm, StepContext
from sluice_worker.layers.linear import load_linear
from sluice_worker.loading.weights import Weights


class Attention:
    """Project, normalize if the model does, rotate, write to the cache, attend, project back."""

    def __init__(
        self, config: ModelConfig, kernels: Kernels, weights: Weights, prefix: str, window: int | None
    ) -> None:
        self._kernels = kernels
        self.window = window
        self._head_dim = config.head_dim
        self._heads = [config.num_heads, config.num_kv_heads, config.num_kv_heads]
        q_size = config.num_heads * config.head_dim
        kv_size = config.num_kv_heads * config.head_dim
        qkv = [
            (f"{prefix}.q_proj", q_size),
            (f"{prefix}.k_proj", kv_size),
            (f"{prefix}.v_proj", kv_size),
        ]
        out = [(f"{prefix}.o_proj", config.hidden_size)]
        self.qkv = load_linear(kernels, weights, qkv, config.hidden_size, config.qkv_bias)
        self.out = load_linear(kernels, weights, out, q_size, config.o_bias)
        self.qk_norm = _load_qk_norm(config, weights, prefix) if config.qk_norm else None

    def __call__(self, x: Tensor, cache: LayerCache, step: StepContext) -> Tensor:
        """[T, hidden] to [T, hidden]; the step's keys and values are in `cache` afterwards."""
        qkv = self.qkv(x).view(len(x), -1, self._head_dim)
        query, key, value = torch.split(qkv, self._heads, dim=1)
        query = self._kernels.rope_and_cache(
            query, key, value, step.cos_sin, step.positions, step.slots, cache, self.qk_norm
        )
        attended = self._kernels.attention(query, cache, step.plan, self.window)
        return self.out(attended.flatten(1))


def _load_qk_norm(config: ModelConfig, weights: Weights, prefix: str) -> QKNorm:
    return QKNorm(
        weights.take(f"{prefix}.q_norm.weight", (config.head_dim,)),
        weights.take(f"{prefix}.k_norm.weight", (config.head_dim,)),
        config.rms_norm_eps,
    )
