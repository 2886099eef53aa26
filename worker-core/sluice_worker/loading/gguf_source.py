"""The tensors of a GGUF file under the names of the Hugging Face models.

llama.cpp rotates neighbouring numbers of a head against each other where we rotate its halves. For the
`llama` architecture its converter therefore reorders the rows of queries and keys; reading puts them back.
"""

from __future__ import annotations

import math
import mmap
import re
from collections.abc import Mapping
from functools import cached_property

import torch
from torch import Tensor

from sluice_worker.errors import CheckpointError, UnsupportedModelError
from sluice_worker.loading.gguf_blocks import BLOCK_TYPES, BlockType
from sluice_worker.loading.gguf_file import GgufFile, TensorPlace
from sluice_worker.loading.pages import drop_pages
from sluice_worker.loading.tensor_source import EMBEDDING, HEAD, StoredTensor
from sluice_worker.quant.weights import QuantizedWeight

TABLES = {"token_embd.weight": EMBEDDING, "output.weight": HEAD, "output_norm.weight": "model.norm.weight"}
PARTS = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_LAYER = re.compile(r"blk\.(\d+)\.(\w+)\.(weight|bias)")
ROPE_FACTORS = "rope_freqs.weight"
"""Divisors of the rotary frequencies; `gguf_config` reads what they mean."""

_ROTATED = re.compile(r"\.self_attn\.([qk])_proj\.")


class GgufSource:
    """One file. Raises `CheckpointError` as soon as its tensors do not lie within it."""

    label: str | None = None

    def __init__(self, file: GgufFile) -> None:
        self.name = str(file.path)
        self._file = file
        self._heads = rotated_heads(file)
        self._taken = {ROPE_FACTORS}
        self._mapped: list[Tensor] = []
        with file.path.open("rb") as opened:
            # Private and writable only so that torch does not warn; nothing writes to it.
            self._data = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY)

    @cached_property
    def _names(self) -> Mapping[str, str]:
        """Ours to the file's; a name of unknown meaning is its own."""
        return {our_name(name): name for name in self._file.tensors}

    @property
    def stored(self) -> Mapping[str, StoredTensor]:
        """From the descriptions at the file's beginning."""
        return {ours: _describe(self._file.tensors[name]) for ours, name in self._names.items()}

    @property
    def unread(self) -> set[str]:
        """Tensors that nothing asked for yet."""
        return self._names.keys() - self._taken

    def drop_pages(self) -> None:
        """Let go of the memory under the tensors read so far."""
        for tensor in self._mapped:
            drop_pages(tensor)
        self._mapped.clear()

    def close(self) -> None:
        """The mapping goes with the last tensor in it."""

    def read(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """Floats, dequantized if need be."""
        tensor = self._read(name, shape)
        return tensor.dequantize() if isinstance(tensor, QuantizedWeight) else tensor

    def read_weight(self, name: str, shape: tuple[int, int]) -> Tensor | QuantizedWeight:
        """As it is stored."""
        return self._read(name, shape)

    def _read(self, name: str, shape: tuple[int, ...]) -> Tensor | QuantizedWeight:
        if name not in self._names:
            raise CheckpointError(
                f"{self.name} has no tensor for {name}, which its metadata call for. Fetch it again."
            )
        place = self._file.tensors[self._names[name]]
        if place.shape != shape:
            raise CheckpointError(
                f"{self._names[name]} in {self.name} has shape {list(place.shape)}, but its metadata call "
                f"for {list(shape)}."
            )
        kind = BLOCK_TYPES.get(place.type)
        if kind is None:
            raise UnsupportedModelError(
                f"{self._names[name]} in {self.name} is stored as GGML type {place.type}; supported are "
                f"{', '.join(kind.name for kind in BLOCK_TYPES.values())}. Use a Q8_0, Q4_0 or Q4_K_M file."
            )
        self._taken.add(name)
        tensor = kind.decode(self._blocks(place, kind))
        if isinstance(tensor, Tensor):
            tensor = tensor.view(shape)
        rotated = _ROTATED.search(name)
        if rotated is None or self._heads is None:
            return tensor
        return _in_order(tensor, self._heads[rotated[1]])

    def _blocks(self, place: TensorPlace, kind: BlockType) -> Tensor:
        """uint8 [rows, blocks, bytes of a block], where they lie in the file."""
        rows, width = math.prod(place.shape[:-1]), place.shape[-1]
        num_bytes = rows * width // kind.numbers * kind.num_bytes
        if width % kind.numbers or place.offset + num_bytes > len(self._data):
            raise CheckpointError(f"{self.name} is cut short or broken. Fetch it again.")
        raw = torch.frombuffer(self._data, dtype=torch.uint8, count=num_bytes, offset=place.offset)
        self._mapped.append(raw)
        return raw.view(rows, width // kind.numbers, kind.num_bytes)


def our_name(name: str) -> str:
    """What Hugging Face's models call the tensor; its own name if it is none of theirs."""
    layer = _LAYER.fullmatch(name)
    if layer is None or layer[2] not in PARTS:
        return TABLES.get(name, name)
    return f"model.layers.{layer[1]}.{PARTS[layer[2]]}.{layer[3]}"


def rotated_heads(file: GgufFile) -> dict[str, int] | None:
    """Heads of q and k if their rows are in llama.cpp's order, else `None`."""
    if file.metadata.get("general.architecture") != "llama":
        return None
    heads = int(file.metadata["llama.attention.head_count"])
    return {"q": heads, "k": int(file.metadata.get("llama.attention.head_count_kv", heads))}


def _describe(place: TensorPlace) -> StoredTensor:
    kind = BLOCK_TYPES.get(place.type)
    if kind is None:
        return StoredTensor(place.shape, 0, is_float=False)
    numbers = math.prod(place.shape)
    return StoredTensor(place.shape, numbers // kind.numbers * kind.num_bytes, kind.numbers == 1)


def _in_order(tensor: Tensor | QuantizedWeight, heads: int) -> Tensor | QuantizedWeight:
    """Rows of each head from pairs of neighbours to two halves."""
    rows = len(tensor.codes if isinstance(tensor, QuantizedWeight) else tensor)
    order = torch.arange(rows).view(heads, rows // heads // 2, 2).transpose(1, 2).flatten()
    if isinstance(tensor, Tensor):
        return tensor[order]
    shifts = None if tensor.shifts is None else tensor.shifts[order]
    return tensor._replace(codes=tensor.codes[order], scales=tensor.scales[order], shifts=shifts)
