"""Weights of a model folder: safetensors files, single or sharded, read tensor by tensor.

Files are memory-mapped: a tensor that needs neither conversion nor merging stays in the page cache and costs
no memory of its own. The model *takes* each tensor by name and shape; what is missing, misshapen or left over
is an error that names the tensors, because a wrong guess here would only show as nonsense in the text.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sluice_worker.errors import CheckpointError, UnsupportedModelError
from sluice_worker.loading.model_folder import ModelFolder
from sluice_worker.loading.pages import drop_pages

FLOAT_TYPES = ("F32", "F16", "BF16")
"""Element types that are read, in safetensors' spelling."""

SHOWN = 5
"""Names in an error message before it says how many more there are."""


class Checkpoint:
    """The tensors of one model, converted to `dtype` on `device` as they are taken. A context manager."""

    def __init__(
        self, folder: ModelFolder, dtype: torch.dtype, device: torch.device, ignored: Iterable[str] = ()
    ) -> None:
        """Open all files. `ignored` names tensors that may be present and are not used.

        Raises `CheckpointError` for a file that is not safetensors.
        """
        self.dtype = dtype
        self.device = device
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
    def num_parameters(self) -> int:
        """Numbers in all tensors that are not ignored, read from the files' headers."""
        return sum(math.prod(self._where[name].get_slice(name).get_shape()) for name in self._used_names())

    def take(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """The tensor `name`.

        Raises `CheckpointError` when it is missing or has another shape, `UnsupportedModelError` when its
        element type is not a float type.
        """
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
        return tensor.to(device=self.device, dtype=self.dtype)

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

    def _used_names(self) -> set[str]:
        # Old checkpoints store the rope frequencies, which follow from config.json.
        return {n for n in self._where if n not in self._ignored and not n.endswith(".rotary_emb.inv_freq")}
