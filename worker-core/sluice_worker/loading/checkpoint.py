"""Weights of a model folder: safetensors files, single or sharded, read tensor by tensor.

Files are memory-mapped: a tensor that needs neither conversion nor merging stays in the page cache and costs
no memory of its own. The model *takes* each tensor by name and shape; what is missing, misshapen or left over
is an error that names the tensors, because a wrong guess here would only show as nonsense in the text.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sluice_worker.config import QuantizationName
from sluice_worker.errors import CheckpointError, UnsupportedModelError
from sluice_worker.loading.model_folder import ModelFolder
from sluice_worker.loading.pages import drop_pages
from sluice_worker.quant.recipe import bytes_per_weight, kind_of, quantize
from sluice_worker.quant.weights import QuantizedWeight

FLOAT_TYPES = ("F32", "F16", "BF16")
"""Element types that are read, in safetensors' spelling."""

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"

SHOWN = 5
"""Names in an error message before it says how many more there are."""


class Checkpoint:
    """The tensors of one model, converted to `dtype` on `device` as they are taken. A context manager."""

    def __init__(
        self,
        folder: ModelFolder,
        dtype: torch.dtype,
        device: torch.device,
        ignored: Iterable[str] = (),
        quantization: QuantizationName = "none",
    ) -> None:
        """Open all files. `ignored` names tensors that may be present and are not used.

        Raises `CheckpointError` for a file that is not safetensors.
        """
        self.dtype = dtype
        self.device = device
        self.num_parameters = 0
        """Numbers in the tensors taken so far."""
        self.weight_bytes = 0
        """Memory of the tensors taken so far, in the formats they are computed with."""
        self._kinds: Counter[str] = Counter()
        self._quantization: QuantizationName = quantization
        self._folder = folder
        self._ignored = frozenset(ignored)
        self._taken: set[str] = set()
        self._mapped: list[Tensor] = []
        self._files = ExitStack()
        self._where: dict[str, Any] = {}
        for path in folder.weights:
            try:
                file = self._files.enter_context(safe_open(path, framework="pt", device="cpu"))
            except (SafetensorError, OSError) as error:
                raise CheckpointError(f"{path} is not a readable safetensors file: {error}.") from error
            self._where.update(dict.fromkeys(file.keys(), file))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.close()

    @property
    def expected_bytes(self) -> int:
        """Memory that all tensors will take, by the files' headers."""
        return sum(self._expected_bytes(name) for name in self._used_names())

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
        tensor = self._read(name, shape).to(device=self.device, dtype=self.dtype)
        self._count(tensor.numel(), tensor.nbytes)
        return tensor

    def take_weight(self, name: str, shape: tuple[int, int]) -> Tensor | QuantizedWeight:
        """The weight `name` [out, in] of a linear layer, quantized if that was asked. Raises as `take`."""
        head = name in (EMBEDDING, HEAD)
        weight = quantize(self._read(name, shape), self._quantization, head=head)
        if isinstance(weight, Tensor):
            weight = weight.to(device=self.device, dtype=self.dtype)
            self._count(math.prod(shape), weight.nbytes)
        else:
            weight = weight.to(self.device, self.dtype)
            self._count(math.prod(shape), weight.packed_bytes)
        if not head:
            self._kinds[kind_of(weight)] += math.prod(shape)
        return weight

    def drop_pages(self) -> None:
        """Let go of the memory of all tensors taken so far; those in use are read again when touched."""
        for tensor in self._mapped:
            drop_pages(tensor)
        self._mapped.clear()

    def check_all_taken(self) -> None:
        """Raise `CheckpointError` when the files hold tensors that the model did not take."""
        left = sorted(self._used_names() - self._taken)
        if left:
            more = f" and {len(left) - SHOWN} more" if len(left) > SHOWN else ""
            raise CheckpointError(
                f"{self._folder.path} holds tensors that its config.json has no use for: "
                f"{', '.join(left[:SHOWN])}{more}. The architecture or its options do not match the weights."
            )

    def _read(self, name: str, shape: tuple[int, ...]) -> Tensor:
        file = self._where.get(name)
        if file is None:
            raise CheckpointError(
                f"{self._folder.path} has no tensor {name}, which its config.json calls for. "
                "The checkpoint is incomplete, or config.json belongs to another model."
            )
        header = file.get_slice(name)
        if tuple(header.get_shape()) != shape:
            raise CheckpointError(
                f"{name} in {self._folder.path} has shape {header.get_shape()}, but config.json calls for "
                f"{list(shape)}."
            )
        if header.get_dtype() not in FLOAT_TYPES:
            raise UnsupportedModelError(
                f"{name} in {self._folder.path} is stored as {header.get_dtype()}; supported are "
                f"{', '.join(FLOAT_TYPES)}. Use the unquantized checkpoint."
            )
        self._taken.add(name)
        tensor: Tensor = file.get_tensor(name)
        self._mapped.append(tensor)
        return tensor

    def _count(self, numbers: int, num_bytes: int) -> None:
        self.num_parameters += numbers
        self.weight_bytes += num_bytes

    def _expected_bytes(self, name: str) -> int:
        shape = self._where[name].get_slice(name).get_shape()
        table = name == EMBEDDING and HEAD in self._where
        plain = table or len(shape) != 2
        each = bytes_per_weight(
            "none" if plain else self._quantization, self.dtype, head=name in (EMBEDDING, HEAD)
        )
        return int(math.prod(shape) * each)

    def _used_names(self) -> set[str]:
        # Old checkpoints store the rope frequencies, which follow from config.json.
        return {n for n in self._where if n not in self._ignored and not n.endswith(".rotary_emb.inv_freq")}
