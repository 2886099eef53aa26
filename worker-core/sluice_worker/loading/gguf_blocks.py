"""GGUF's tensor types, each a row of blocks, in the formats that are computed with.

Q8_0, Q5_0 and Q4_0 are codes with a float16 scale for 32 numbers, which is `INT8_GROUP` and `INT4_GROUP` as
they are. Q4_1 and Q4_K have a minimum beside the scale, `scale * code - minimum`, which is `INT4_SHIFT` but
for the rounding of two numbers to float16: less than a hundredth of the step between codes. Q6_K, Q5_K and
Q5_1 become floats, and then 8-bit codes. (llama.cpp mixes the older 5-bit types into "Q4_K_M" where rows do
not divide by 256.)

Layouts after `ggml-common.h` and `ggml-quants.c` of llama.cpp.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from sluice_worker.quant.weights import QuantizedWeight, WeightFormat, quantize_int8_group

_SUPER = 256
"""Numbers in a super-block of the K types."""


class BlockType(NamedTuple):
    """One `GGML_TYPE_*`."""

    name: str
    numbers: int
    """In a block."""
    num_bytes: int
    """Of a block."""
    decode: Callable[[Tensor], Tensor | QuantizedWeight]
    """uint8 [rows, blocks, bytes of a block] to a weight [rows, numbers]."""


def _floats(dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    return lambda blocks: blocks.flatten(1).view(dtype)


def _half(blocks: Tensor, first: int) -> Tensor:
    """The float16 numbers at byte `first` of each block."""
    return blocks[..., first : first + 2].contiguous().view(torch.float16).squeeze(-1)


def _split(x: Tensor, *sizes: int) -> Tensor:
    """The last dimension as several."""
    return x.reshape(*x.shape[:-1], *sizes)


def _nibbles(packed: Tensor) -> Tensor:
    """The low halves of some bytes, then the high ones."""
    return torch.cat((packed & 15, packed >> 4), dim=-1)


def _q8_0(blocks: Tensor) -> QuantizedWeight:
    codes = blocks[..., 2:].contiguous().view(torch.int8).flatten(1)
    return QuantizedWeight(WeightFormat.INT8_GROUP, codes, _half(blocks, 0))


def _q4_0(blocks: Tensor) -> QuantizedWeight:
    codes = (_nibbles(blocks[..., 2:]).view(torch.int8) - 8).flatten(1)
    return QuantizedWeight(WeightFormat.INT4_GROUP, codes, _half(blocks, 0))


def _q4_1(blocks: Tensor) -> QuantizedWeight:
    codes = _nibbles(blocks[..., 4:]).flatten(1)
    return _with_minimum(codes, _half(blocks, 0).float(), -_half(blocks, 2).float())


def _five_bits(blocks: Tensor, first: int) -> Tensor:
    """Codes 0 to 31, uint8 [rows, blocks, 32]: from byte `first` on their highest bits, then the others."""
    high = blocks[..., first : first + 4, None] >> torch.arange(8, dtype=torch.uint8) & 1
    return _nibbles(blocks[..., first + 4 :]) + 16 * high.flatten(-2)


def _q5_0(blocks: Tensor) -> QuantizedWeight:
    codes = (_five_bits(blocks, 2).view(torch.int8) - 16).flatten(1)
    return QuantizedWeight(WeightFormat.INT8_GROUP, codes, _half(blocks, 0))


def _q5_1(blocks: Tensor) -> QuantizedWeight:
    scales, minima = _half(blocks, 0).float(), _half(blocks, 2).float()
    weight = _five_bits(blocks, 4).float() * scales[..., None] + minima[..., None]
    return quantize_int8_group(weight.flatten(1))


def _q4_k(blocks: Tensor) -> QuantizedWeight:
    scales, minima = _k_scales(blocks)
    pairs = _split(blocks[..., 16:], 4, 32)  # 32 bytes hold 64 numbers
    return _with_minimum(_nibbles(pairs).flatten(1), scales, minima)


def _with_minimum(codes: Tensor, scales: Tensor, minima: Tensor) -> QuantizedWeight:
    """`scales * codes - minima` for codes 0 to 15: [rows, in], and float32 [rows, groups]."""
    flat = scales.half() == 0  # nothing but the minimum: once as the scale, times -1
    scales = torch.where(flat, minima, scales).half()
    shifts = torch.where(flat | (scales == 0), 0.0, minima / (8 * scales.float()) - 1).half()
    codes = codes.view(torch.int8) - 8
    if flat.any():
        _split(codes, *flat.shape[1:], 32)[flat] = -1
    return QuantizedWeight(WeightFormat.INT4_SHIFT, codes, scales, shifts)


def _q5_k(blocks: Tensor) -> QuantizedWeight:
    scales, minima = _k_scales(blocks)
    high = blocks[..., None, 16:48] >> torch.arange(8, dtype=torch.uint8)[:, None] & 1
    low = _split(_nibbles(_split(blocks[..., 48:], 4, 32)), 2, 32).flatten(-3, -2)
    codes = (low + 16 * high).float().flatten(1, 2)
    return quantize_int8_group((codes * scales[..., None] - minima[..., None]).flatten(1))


def _q6_k(blocks: Tensor) -> QuantizedWeight:
    low = _split(blocks[..., :128], 2, 2, 32)  # halves of 128 numbers, each 2 * 32 bytes
    low = torch.cat((low & 15, low >> 4), dim=-2)
    high = _split(blocks[..., 128:192], 2, 1, 32)
    high = high >> torch.tensor([0, 2, 4, 6], dtype=torch.uint8)[:, None] & 3
    codes = (low + 16 * high).float() - 32
    scales = (
        blocks[..., 192:208].contiguous().view(torch.int8).float() * _half(blocks, 208).float()[..., None]
    )
    return quantize_int8_group((_split(codes.flatten(-3), 16, 16) * scales[..., None]).flatten(1))


def _k_scales(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Scales and minima of the eight groups of each super-block: float32 [rows, groups].

    Twelve bytes hold eight scales and eight minima of 6 bits; those of the second four groups are in pieces.
    """
    first, second, third = _split(blocks[..., 4:16], 3, 4).unbind(-2)
    scales = torch.cat((first & 63, (third & 15) | (first >> 6) << 4), dim=-1)
    minima = torch.cat((second & 63, (third >> 4) | (second >> 6) << 4), dim=-1)
    d, d_min = _half(blocks, 0).float()[..., None], _half(blocks, 2).float()[..., None]
    return (d * scales).flatten(1), (d_min * minima).flatten(1)


BLOCK_TYPES: Mapping[int, BlockType] = {
    0: BlockType("F32", 1, 4, _floats(torch.float32)),
    1: BlockType("F16", 1, 2, _floats(torch.float16)),
    2: BlockType("Q4_0", 32, 18, _q4_0),
    3: BlockType("Q4_1", 32, 20, _q4_1),
    6: BlockType("Q5_0", 32, 22, _q5_0),
    7: BlockType("Q5_1", 32, 24, _q5_1),
    8: BlockType("Q8_0", 32, 34, _q8_0),
    12: BlockType("Q4_K", _SUPER, 144, _q4_k),
    13: BlockType("Q5_K", _SUPER, 176, _q5_k),
    14: BlockType("Q6_K", _SUPER, 210, _q6_k),
    30: BlockType("BF16", 1, 2, _floats(torch.bfloat16)),
}
"""By `GGML_TYPE_*`."""
