"""Safetensors files, single or sharded, read tensor by tensor.

Files are memory-mapped: a tensor that needs neither conversion nor merging stays in the page cache and costs
no memory of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from sluice_worker.errors import CheckpointError, UnsupportedModelError
from sluice_worker.loading.model_folder import ModelFolder
from sluice_worker.loading.pages import drop_pages
from sluice_worker.loading.tensor_source import StoredTensor
from sluice_worker.quant.weights import QuantizedWeight

FLOAT_TYPES = ("F32", "F16", "BF16")
"""Element types that are read as floats, in safetensors' spelling."""

_BYTES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}

LayerReader = Callable[["SafetensorsSource", str, tuple[int, int]], "QuantizedWeight | Tensor | None"]
"""Reads the weight [out, in] of the layer called so from its tensors; `None` when it is stored plainly."""


class SafetensorsSource:
    """All files of one folder."""

    def __init__(
        self, folder: ModelFolder, read_layer: LayerReader | None = None, label: str | None = None
    ) -> None:
        """Open all files. `read_layer` reads quantized layers, which `label` names.

        Raises `CheckpointError` for a file that is not safetensors.
        """
        self.name = str(folder.path)
        self.label = label
        self._folder = folder
        self._read_layer = read_layer
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

    def __contains__(self, name: str) -> bool:
        return name in self._where

    @cached_property
    def stored(self) -> Mapping[str, StoredTensor]:
        """From the files' headers."""
        return {name: self._describe(name) for name in self._where}

    @property
    def unread(self) -> set[str]:
        """Tensors that nothing asked for yet."""
        return self._where.keys() - self._taken

    def drop_pages(self) -> None:
        """Let go of the memory under the tensors read so far."""
        for tensor in self._mapped:
            drop_pages(tensor)
        self._mapped.clear()

    def close(self) -> None:
        """Close the files."""
        self._files.close()

    def read(self, name: str, shape: tuple[int, ...] | None, types: Sequence[str] = FLOAT_TYPES) -> Tensor:
        """The tensor `name`; `None` as shape takes any.

        Raises `CheckpointError` when it is missing or has another shape, `UnsupportedModelError` when its
        element type is none of `types`.
        """
        file = self._where.get(name)
        if file is None:
            raise CheckpointError(
                f"{self._folder.path} has no tensor {name}, which its config.json calls for. "
                "The checkpoint is incomplete, or config.json belongs to another model."
            )
        header = file.get_slice(name)
        if shape is not None and tuple(header.get_shape()) != shape:
            raise CheckpointError(
                f"{name} in {self._folder.path} has shape {header.get_shape()}, but config.json calls for "
                f"{list(shape)}."
            )
        if header.get_dtype() not in types:
            raise UnsupportedModelError(
                f"{name} in {self._folder.path} is stored as {header.get_dtype()}; supported are "
                f"{', '.join(types)}. Use the unquantized checkpoint."
            )
        self._taken.add(name)
        tensor: Tensor = file.get_tensor(name)
        self._mapped.append(tensor)
        return tensor

    def read_weight(self, name: str, shape: tuple[int, int]) -> Tensor | QuantizedWeight:
        """A quantized layer in its own way, another one as a tensor."""
        if self._read_layer is not None:
            layer = name.removesuffix(".weight")
            weight = self._read_layer(self, layer, shape)
            if weight is not None:
                self._forget_empty_bias(f"{layer}.bias", shape[0])
                return weight
        return self.read(name, shape)

    def _forget_empty_bias(self, name: str, size: int) -> None:
        """Some quantizers write zeros for layers that have no bias."""
        if name in self and not self.read(name, (size,)).any():
            self._taken.add(name)
        else:
            self._taken.discard(name)

    def _describe(self, name: str) -> StoredTensor:
        header = self._where[name].get_slice(name)
        shape, kind = tuple(header.get_shape()), header.get_dtype()
        return StoredTensor(shape, math.prod(shape) * _BYTES.get(kind, 1), kind in FLOAT_TYPES)
