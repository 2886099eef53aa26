"""The weights of one model, as the model takes them.

The model *takes* each tensor by name and shape; what is missing, misshapen or left over is an error that
names the tensors, because a wrong guess here would only show as nonsense in the text. Tensors are converted
one by one as they are taken: to the model's type, or to codes where that was asked. What the files hold as
codes stays as it is.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from sluice_worker.config import QuantizationName
from sluice_worker.errors import CheckpointError
from sluice_worker.loading.tensor_source import EMBEDDING, HEAD, TensorSource
from sluice_worker.quant.recipe import Quantizer, bytes_per_weight, kind_of, quantize
from sluice_worker.quant.weights import QuantizedWeight, quantize_weight

SHOWN = 5
"""Names in an error message before it says how many more there are."""


class Checkpoint:
    """The tensors of one model, converted to `dtype` on `device` as they are taken. A context manager."""

    def __init__(
        self,
        source: TensorSource,
        dtype: torch.dtype,
        device: torch.device,
        ignored: Iterable[str] = (),
        quantization: QuantizationName = "none",
        quantizer: Quantizer = quantize_weight,
    ) -> None:
        """`ignored` names tensors that may be present and are not used."""
        self.dtype = dtype
        self.device = device
        self.num_parameters = 0
        """Numbers in the tensors taken so far."""
        self.weight_bytes = 0
        """Memory of the tensors taken so far, in the formats they are computed with."""
        self._kinds: Counter[str] = Counter()
        self._quantization: QuantizationName = quantization
        self._quantizer = quantizer
        self._source = source
        self._ignored = frozenset(ignored)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._source.close()

    @property
    def expected_bytes(self) -> int:
        """Memory that all tensors will take, by the files' headers."""
        return sum(self._expected_bytes(name) for name in self._source.stored if not self._is_ignored(name))

    @property
    def quantization(self) -> str:
        """What most weights of linear layers, the output layer aside, are stored as: `none`, `int8`, ..."""
        ((kind, _),) = self._kinds.most_common(1) or (("none", 0),)
        return kind

    def take(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """The tensor `name`.

        Raises `CheckpointError` when it is missing or has another shape, `UnsupportedModelError` when its
        element type is not a float type.
        """
        tensor = self._source.read(name, shape).to(device=self.device, dtype=self.dtype)
        self._count(tensor.numel(), tensor.nbytes)
        return tensor

    def take_weight(self, name: str, shape: tuple[int, int]) -> Tensor | QuantizedWeight:
        """The weight `name` [out, in] of a linear layer: codes if it is stored so or if that was asked for.

        Raises as `take`.
        """
        head = name in (EMBEDDING, HEAD)
        weight, label = self._source.read_weight(name, shape), self._source.label
        if isinstance(weight, Tensor):
            weight = quantize(weight, self._quantization, head=head, quantizer=self._quantizer)
            label = None
        if not head:
            self._kinds[label or kind_of(weight)] += math.prod(shape)
        if isinstance(weight, Tensor):
            weight = weight.to(device=self.device, dtype=self.dtype)
            self._count(math.prod(shape), weight.nbytes)
        else:
            weight = weight.to(self.device, self.dtype)
            self._count(math.prod(shape), weight.packed_bytes)
        return weight

    def drop_pages(self) -> None:
        """Let go of the memory of all tensors taken so far; those in use are read again when touched."""
        self._source.drop_pages()

    def check_all_taken(self) -> None:
        """Raise `CheckpointError` when the files hold tensors that the model did not take."""
        left = sorted(name for name in self._source.unread if not self._is_ignored(name))
        if left:
            more = f" and {len(left) - SHOWN} more" if len(left) > SHOWN else ""
            raise CheckpointError(
                f"{self._source.name} holds tensors that its config.json has no use for: "
                f"{', '.join(left[:SHOWN])}{more}. The architecture or its options do not match the weights."
            )

    def _count(self, numbers: int, num_bytes: int) -> None:
        self.num_parameters += numbers
        self.weight_bytes += num_bytes

    def _expected_bytes(self, name: str) -> int:
        tensor = self._source.stored[name]
        table = name == EMBEDDING and HEAD in self._source.stored
        if not tensor.is_float and not table:
            return tensor.num_bytes
        plain = table or len(tensor.shape) != 2
        quantization = "none" if plain else self._quantization
        each = bytes_per_weight(quantization, self.dtype, head=name in (EMBEDDING, HEAD))
        return int(math.prod(tensor.shape) * each)

    def _is_ignored(self, name: str) -> bool:
        # Old checkpoints store the rope frequencies, which follow from config.json.
        return name in self._ignored or name.endswith(".rotary_emb.inv_freq")
