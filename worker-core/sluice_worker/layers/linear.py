"""Matrix products with packed weights; projections that read the same input are merged into one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sluice_worker.kernels.interface import Kernels
from sluice_worker.loading.weights import LinearParts, Weights


class Linear:
    """`x @ weight.T + bias` with a weight in the backend's own layout."""

    def __init__(self, kernels: Kernels, packed: Any) -> None:
        self._kernels = kernels
        self.packed = packed

    def __call__(self, x: Tensor) -> Tensor:
        """[T, in] to [T, out]."""
        return self._kernels.linear(x, self.packed)

    def rows(self, indices: Tensor, dtype: torch.dtype) -> Tensor:
        """Rows of the weight: `indices` int64 [T] to [T, in]."""
        return self._kernels.unpack(self.packed, indices, dtype)


def load_linear(
    kernels: Kernels, weights: Weights, parts: LinearParts, in_features: int, bias: bool
) -> Linear:
    """The projections `parts` (name, out features), their outputs stacked in that order."""
    return Linear(kernels, weights.take_linear(parts, in_features, bias))
