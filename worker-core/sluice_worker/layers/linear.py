"""Matrix products with packed weights; projections that read the same input are merged into one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sluice_worker.kernels.interface import Kernels
from sluice_worker.loading.checkpoint import Checkpoint
from sluice_worker.quant.stacking import stack_weights
from sluice_worker.quant.weights import QuantizedWeight


class Linear:
    """`x @ weight.T + bias` with a weight in the backend's own layout."""

    def __init__(
        self, kernels: Kernels, weight: Tensor | QuantizedWeight, bias: Tensor | None = None
    ) -> None:
        self._kernels = kernels
        self.packed: Any = kernels.pack(weight, bias)

    def __call__(self, x: Tensor) -> Tensor:
        """[T, in] to [T, out]."""
        return self._kernels.linear(x, self.packed)

    def rows(self, indices: Tensor, dtype: torch.dtype) -> Tensor:
        """Rows of the weight: `indices` int64 [T] to [T, in]."""
        return self._kernels.unpack(self.packed, indices, dtype)


def load_linear(
    kernels: Kernels, checkpoint: Checkpoint, parts: Sequence[tuple[str, int]], in_features: int, bias: bool
) -> Linear:
    """Read the projections `parts` (name, out features) and stack their outputs in that order."""
    weights = [checkpoint.take_weight(f"{name}.weight", (out, in_features)) for name, out in parts]
    biases = [checkpoint.take(f"{name}.bias", (out,)) for name, out in parts] if bias else []
    linear = Linear(kernels, stack_weights(weights), torch.cat(biases) if biases else None)
    checkpoint.drop_pages()
    return linear
