"""Where a model gets the weights it computes with: packed now, or kept from an earlier start."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from sluice_worker.errors import CheckpointError
from sluice_worker.kernels.interface import Kernels, StoredForm
from sluice_worker.loading.checkpoint import Checkpoint
from sluice_worker.loading.packed_file import PackedWeights, WeightSummary
from sluice_worker.quant.stacking import stack_weights

LinearParts = Sequence[tuple[str, int]]
"""Projections that read the same input: name and outputs of each."""


class Weights(Protocol):
    """What the layers of a model take, each once."""

    dtype: torch.dtype
    device: torch.device

    def take(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """The tensor `name`. Raises `CheckpointError` when there is none, or of another shape."""

    def take_linear(self, parts: LinearParts, in_features: int, bias: bool) -> Any:
        """The projections `parts`, their outputs stacked in that order, as `Kernels.linear` wants them."""


class FreshWeights:
    """Read from a checkpoint and packed; remembers what it gave, so that it can be kept."""

    def __init__(self, checkpoint: Checkpoint, kernels: Kernels) -> None:
        self.dtype, self.device = checkpoint.dtype, checkpoint.device
        self._checkpoint = checkpoint
        self._kernels = kernels
        self._tensors: dict[str, Tensor] = {}
        self._linears: dict[str, Any] = {}

    def take(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """From the checkpoint."""
        tensor = self._tensors[name] = self._checkpoint.take(name, shape)
        return tensor

    def take_linear(self, parts: LinearParts, in_features: int, bias: bool) -> Any:
        """Read, quantized if asked, stacked and packed."""
        take = self._checkpoint
        weights = [take.take_weight(f"{name}.weight", (out, in_features)) for name, out in parts]
        biases = [take.take(f"{name}.bias", (out,)) for name, out in parts] if bias else []
        packed = self._kernels.pack(stack_weights(weights), torch.cat(biases) if biases else None)
        take.drop_pages()
        self._linears[_label(parts)] = packed
        return packed

    def packed(self, form: StoredForm, summary: WeightSummary) -> PackedWeights:
        """All that was taken, as it can be kept."""
        linears = {label: form.parts_of(packed) for label, packed in self._linears.items()}
        return PackedWeights(summary, self._tensors, linears)


class KeptWeights:
    """As an earlier start packed them."""

    def __init__(
        self, kept: PackedWeights, form: StoredForm, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.dtype, self.device = dtype, device
        self._kept = kept
        self._form = form

    def take(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """Where it lies in the file."""
        tensor = self._kept.tensors.get(name)
        if tensor is None or tuple(tensor.shape) != shape:
            raise _strange(name)
        return tensor

    def take_linear(self, parts: LinearParts, in_features: int, bias: bool) -> Any:
        """Assembled from where its parts lie in the file."""
        linear = self._kept.linears.get(_label(parts))
        if linear is None or linear.shape != (sum(out for _, out in parts), in_features):
            raise _strange(_label(parts))
        return self._form.assemble(linear)


def _label(parts: LinearParts) -> str:
    return " ".join(name for name, _ in parts)


def _strange(name: str) -> CheckpointError:
    return CheckpointError(
        f"The packed weights kept for this model lack {name}. Delete them, or start with --packed-cache off."
    )
