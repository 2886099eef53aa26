"""Where a checkpoint's tensors come from: what `Checkpoint` needs to know of a file format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from torch import Tensor

from sluice_worker.quant.weights import QuantizedWeight

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
"""The tables of input and output. Names are those of the Hugging Face models in every format."""


class StoredTensor(NamedTuple):
    """One tensor as the headers describe it."""

    shape: tuple[int, ...]
    num_bytes: int
    is_float: bool


class TensorSource(Protocol):
    """The tensors of one model by name, as they are stored."""

    name: str
    """The folder or file, for messages."""
    label: str | None
    """What to call weights that this format stores as codes; `None` names them by their bits."""

    @property
    def stored(self) -> Mapping[str, StoredTensor]:
        """All tensors, under the format's own names."""

    @property
    def unread(self) -> set[str]:
        """Those of `stored` that nothing asked for yet."""

    def read(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """A tensor of floats. Raises `CheckpointError` when it is missing or has another shape,
        `UnsupportedModelError` when its element type is not one that is read."""

    def read_weight(self, name: str, shape: tuple[int, int]) -> Tensor | QuantizedWeight:
        """The weight [out, in] of a linear layer, in codes if it is stored so. Raises as `read`."""

    def drop_pages(self) -> None:
        """Let go of the memory under the tensors read so far; they are read again when touched."""

    def close(self) -> None:
        """Close the files; tensors that were read stay valid."""
