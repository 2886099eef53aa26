"""Weights that read the same input, as one weight: their outputs one after the other.

Checkpoints may store the projections of one layer in different formats (llama.cpp gives values more bits
than queries). One format then has to hold them all: 4-bit codes without shifts get shifts of zero and lose
nothing; otherwise it is 8 bits per 32 inputs, which holds 4-bit codes as they are and the rest within a 254th
of a group's largest weight. Beside a weight of floats all become floats.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeGuard

import torch
from torch import Tensor

from sluice_worker.quant.weights import QuantizedWeight, WeightFormat, quantize_int8_group

_FOUR_BITS = frozenset({WeightFormat.INT4_GROUP, WeightFormat.INT4_SHIFT})


def stack_weights(parts: Sequence[Tensor | QuantizedWeight]) -> Tensor | QuantizedWeight:
    """Stack weights [out, in] of equal `in`, in their order."""
    if len(parts) == 1:
        return parts[0]
    if not _all_quantized(parts):
        return torch.cat(
            [part if isinstance(part, Tensor) else part.dequantize(part.dtype) for part in parts]
        )
    formats = {part.format for part in parts}
    if len(formats) == 1:
        return _joined(parts)
    if formats == _FOUR_BITS:
        return _joined([_with_shifts(part) for part in parts])
    return _joined([_in_eight_bits(part) for part in parts])


def _all_quantized(parts: Sequence[Tensor | QuantizedWeight]) -> TypeGuard[Sequence[QuantizedWeight]]:
    return all(isinstance(part, QuantizedWeight) for part in parts)


def _joined(parts: Sequence[QuantizedWeight]) -> QuantizedWeight:
    """`parts` have the same format."""
    shifts = [part.shifts for part in parts if part.shifts is not None]
    return parts[0]._replace(
        codes=torch.cat([part.codes for part in parts]),
        scales=torch.cat([part.scales for part in parts]),
        shifts=torch.cat(shifts) if shifts else None,
    )


def _with_shifts(part: QuantizedWeight) -> QuantizedWeight:
    if part.shifts is not None:
        return part
    return part._replace(format=WeightFormat.INT4_SHIFT, shifts=torch.zeros_like(part.scales))


def _in_eight_bits(part: QuantizedWeight) -> QuantizedWeight:
    match part.format:
        case WeightFormat.INT8_GROUP:
            return part
        case WeightFormat.INT4_GROUP:
            return part._replace(format=WeightFormat.INT8_GROUP)
        case _:
            return quantize_int8_group(part.dequantize(part.dtype))
