"""The gated feed-forward network (Shazeer, "GLU variants improve transformer", 2020; SiLU gate)."""

from __future__ import annotations

from torch import Tensor

from sluice_worker.config import ModelConfig
from sluice_worker.kernels.interface import Kernels
from sluice_worker.layers.linear import load_linear
from sluice_worker.loading.weights import Weights


class GatedMLP:
    """`down(silu(gate(x)) * up(x))`, with gate and up in one product."""

    def __init__(self, config: ModelConfig, kernels: Kernels, weights: Weights, prefix: str) -> None:
        self._kernels = kernels
        inner, hidden, bias = config.intermediate_size, config.hidden_size, config.mlp_bias
        gate_up = [(f"{prefix}.gate_proj", inner), (f"{prefix}.up_proj", inner)]
        self.gate_up = load_linear(kernels, weights, gate_up, hidden, bias)
        self.down = load_linear(kernels, weights, [(f"{prefix}.down_proj", hidden)], inner, bias)

    def __call__(self, x: Tensor) -> Tensor:
        """[T, hidden] to [T, hidden]."""
        return self.down(self._kernels.silu_mul(self.gate_up(x)))
