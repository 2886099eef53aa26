"""Layers as bitsandbytes saves them in safetensors: 8-bit (LLM.int8) and 4-bit (nf4, fp4).

8-bit: `weight` int8 [out, in] and `SCB` [out]; a weight is `code * SCB / 127`, which is our int8.

4-bit: `weight` uint8 holds two codes a byte, the high one first, row after row; a weight is
`quant_map[code] * absmax[block]`, with a block of 64 in a row. The magnitudes may be 8-bit codes themselves
("double quantization"). The table is not linear in the code, so no format of ours holds it: such weights
become floats, and are quantized again only if that is asked for.
"""

from __future__ import annotations

import msgspec
import torch
from torch import Tensor

from sluice_worker.errors import CheckpointError
from sluice_worker.loading.safetensors_source import SafetensorsSource
from sluice_worker.quant.weights import QuantizedWeight, WeightFormat

_STATE = "quant_state.bitsandbytes__"
_TABLES = ("nf4", "fp4")


class _State(msgspec.Struct, frozen=True):
    """How a 4-bit weight is stored: JSON, in a tensor of bytes."""

    blocksize: int
    shape: list[int]
    nested_blocksize: int = 0
    nested_offset: float = 0.0


def read_layer(
    files: SafetensorsSource, layer: str, shape: tuple[int, int]
) -> QuantizedWeight | Tensor | None:
    """The weight of `layer`; `None` when it is stored as floats."""
    if f"{layer}.SCB" in files:
        return _read_8_bit(files, layer, shape)
    for table in _TABLES:
        if f"{layer}.weight.{_STATE}{table}" in files:
            return _read_4_bit(files, f"{layer}.weight", table, shape)
    return None


def _read_8_bit(files: SafetensorsSource, layer: str, shape: tuple[int, int]) -> QuantizedWeight:
    if f"{layer}.weight_format" in files:
        files.read(f"{layer}.weight_format", None, ("U8",))
    codes = files.read(f"{layer}.weight", shape, ("I8",))
    magnitudes = files.read(f"{layer}.SCB", (shape[0],))
    return QuantizedWeight(WeightFormat.INT8, codes, magnitudes.float() / 127)


def _read_4_bit(files: SafetensorsSource, name: str, table: str, shape: tuple[int, int]) -> Tensor:
    try:
        raw = files.read(f"{name}.{_STATE}{table}", None, ("U8",))
        state = msgspec.json.decode(raw.numpy().tobytes(), type=_State)
    except msgspec.MsgspecError as error:
        raise CheckpointError(f"{name}.{_STATE}{table} cannot be read: {error}.") from error
    packed = files.read(name, None, ("U8",)).flatten()
    if tuple(state.shape) != shape or packed.numel() * 2 != shape[0] * shape[1]:
        raise CheckpointError(f"{name} has shape {state.shape}, but config.json calls for {list(shape)}.")
    values = files.read(f"{name}.quant_map", (16,)).float()
    magnitudes = _magnitudes(files, name, state)
    out = torch.empty(packed.numel(), 2)
    out[:, 0], out[:, 1] = values[(packed >> 4).int()], values[(packed & 15).int()]
    if out.numel() != len(magnitudes) * state.blocksize:
        raise CheckpointError(f"{name} has {len(magnitudes)} magnitudes for blocks of {state.blocksize}.")
    return (out.view(-1, state.blocksize) * magnitudes[:, None]).view(shape)


def _magnitudes(files: SafetensorsSource, name: str, state: _State) -> Tensor:
    """float32 [blocks]."""
    if not state.nested_blocksize:
        return files.read(f"{name}.absmax", None).float()
    codes = files.read(f"{name}.absmax", None, ("U8",))
    values = files.read(f"{name}.nested_quant_map", (256,)).float()
    magnitudes = files.read(f"{name}.nested_absmax", None).float()
    each = magnitudes.repeat_interleave(state.nested_blocksize)[: len(codes)]
    return values[codes.int()] * each + state.nested_offset
