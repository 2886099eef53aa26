"""Matrix products with packed weights; projections that read the same input are merged into one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sluice_worker.kernels.interface import Kernels
from sluice_worker.loading.checkpoint import Checkpoint


class Linear:
    """`x @ weight.T + bias` with a weight in the backend's own layout."""

    def __init__(self, kernels: Kernels, weight: Tensor, bias: Tensor | None = None) -> None:
        self._kernels = kernels
        self.packed: Any = kernels.pack(weight, bias)

    def __call__(self, x: Tensor) -> Tensor:
        """[T, in] to [T, out]."""
        return self._kernels.linear(x, self.packed)


def load_linear(
    kernels: Kernels, checkpoint: Checkpoint, parts: Sequence[tuple[str, int]], in_features: int, bias: bool
) -> Linear:
    """Read the projections `parts` (name, out features) and stack their outputs in that order."""
    weights = [checkpoint.take(f"{name}.weight", (out, in_features)) for name, out in parts]
    biases = [checkpoint.take(f"{name}.bias", (out,)) for name, out in parts] if bias else []
    linear = Linear(kernels, _stack(weights), _stack(biases) if biases else None)
    checkpoint.drop_pages()
    return linear


def _stack(tensors: Sequence[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors))
