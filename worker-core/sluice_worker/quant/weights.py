"""Weights as small integers with scales, in plain torch: what the packed formats hold, before packing.

Backends that compute with such weights pack them; the others dequantize. A weight is
`scale * (code - 8 * shift)`. int8 has one scale per output channel; the grouped formats have one per 32
inputs, in float16 as GGUF's Q8_0 and Q4_0 have them. The shift is that of checkpoints with zero points (AWQ,
asymmetric GPTQ): a zero point z of unsigned 4-bit values is a shift of (z - 8) / 8, exact in float16.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

GROUP = 32
"""Inputs that share a scale; `kGroup` in `weight_formats.h`."""

INT4_STRETCHES = (0.9, 1.0, 1.1)
"""Steps tried for a group of 4-bit codes, relative to the one at which its largest weight becomes -8."""

_ROWS_AT_ONCE = 1024


class WeightFormat(IntEnum):
    """How a packed weight is stored: `WeightFormat` in `ops.h`."""

    FLOAT32 = 0
    BFLOAT16 = 1
    INT8 = 2
    INT8_GROUP = 3
    INT4_GROUP = 4
    INT4_SHIFT = 5


class QuantizedWeight(NamedTuple):
    """The codes of a weight [out, in]."""

    format: WeightFormat
    codes: Tensor
    """int8 [out, in]: -127 to 127, or -8 to 7."""
    scales: Tensor
    """float32 [out], or float16 [out, groups]."""
    shifts: Tensor | None = None
    """float16 [out, groups], for `INT4_SHIFT`."""
    dtype: torch.dtype = torch.float32
    """The type of the weight it stands for, and of the activations it meets."""

    @property
    def packed_bytes(self) -> int:
        """Memory it takes in a format of its own: two 4-bit codes to a byte."""
        codes = self.codes.numel() // (1 if self.format < WeightFormat.INT4_GROUP else 2)
        return codes + self.scales.nbytes + (0 if self.shifts is None else self.shifts.nbytes)

    def to(self, device: torch.device, dtype: torch.dtype) -> QuantizedWeight:
        """On `device`, for activations of `dtype`. The scales keep their type."""
        shifts = None if self.shifts is None else self.shifts.to(device)
        return QuantizedWeight(self.format, self.codes.to(device), self.scales.to(device), shifts, dtype)

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """[out, in], computed in float32."""
        out = torch.empty(self.codes.shape, dtype=dtype, device=self.codes.device)
        for first in range(0, len(out), _ROWS_AT_ONCE):
            out[first : first + _ROWS_AT_ONCE] = self._rows(slice(first, first + _ROWS_AT_ONCE))
        return out

    def _rows(self, rows: slice) -> Tensor:
        codes = self.codes[rows].float()
        if self.format is WeightFormat.INT8:
            return codes * self.scales[rows, None]
        if self.shifts is not None:
            codes -= 8 * self._spread(self.shifts[rows])
        return codes * self._spread(self.scales[rows])

    def _spread(self, per_group: Tensor) -> Tensor:
        """[out, groups] to [out, in]."""
        spread = per_group.float()[..., None].expand(*per_group.shape, GROUP)
        return spread.flatten(1)[:, : self.codes.shape[1]]


def quantize_weight(weight: Tensor, weight_format: WeightFormat) -> QuantizedWeight:
    """The codes of a weight [out, in] of floats. Symmetric: 0 stays 0.

    `INT8`: the largest weight of an output channel becomes 127 or -127. `INT8_GROUP`: the same for every 32
    inputs, as Q8_0. `INT4_GROUP`: for every 32 inputs the best of a few steps, each refitted to the codes it
    gives; the mean square error of normally distributed weights is a tenth less than Q4_0's. Raises
    `KeyError` for the other formats.
    """
    return _quantize(weight_format, weight, _QUANTIZERS[weight_format])


def quantize_int8(weight: Tensor) -> QuantizedWeight:
    """One scale per output channel."""
    return quantize_weight(weight, WeightFormat.INT8)


def quantize_int8_group(weight: Tensor) -> QuantizedWeight:
    """8-bit codes, a scale per 32 inputs."""
    return quantize_weight(weight, WeightFormat.INT8_GROUP)


def quantize_int4(weight: Tensor) -> QuantizedWeight:
    """4-bit codes, a scale per 32 inputs."""
    return quantize_weight(weight, WeightFormat.INT4_GROUP)


_Part = tuple[Tensor, Tensor]
"""Codes of some rows, and their scales: int8 [rows, ...] and [rows, ...]."""


def _quantize(
    weight_format: WeightFormat, weight: Tensor, quantize_rows: Callable[[Tensor], _Part]
) -> QuantizedWeight:
    """Some rows at a time, so that what is held in float32 meanwhile stays small."""
    out_features, in_features = weight.shape
    per_channel = weight_format is WeightFormat.INT8
    groups = -(-in_features // GROUP)
    shape = (out_features,) if per_channel else (out_features, groups)
    scales = torch.empty(shape, dtype=torch.float32 if per_channel else torch.float16, device=weight.device)
    codes = torch.empty(weight.shape, dtype=torch.int8, device=weight.device)
    for first in range(0, out_features, _ROWS_AT_ONCE):
        rows = slice(first, first + _ROWS_AT_ONCE)
        some_codes, some_scales = quantize_rows(weight[rows].float())
        codes[rows] = some_codes.flatten(1)[:, :in_features]
        scales[rows] = some_scales.squeeze(-1)
    return QuantizedWeight(weight_format, codes, scales, dtype=weight.dtype)


def _channel_codes(rows: Tensor) -> _Part:
    scales = rows.abs().amax(dim=1, keepdim=True) / 127
    return _codes(rows, scales, -127, 127), scales


def _group_codes(rows: Tensor) -> _Part:
    groups = _groups(rows)
    scales = (groups.abs().amax(dim=-1, keepdim=True) / 127).half()
    return _codes(groups, scales.float(), -127, 127), scales


def _best_int4(rows: Tensor) -> _Part:
    """Sums are float64: in whatever order another implementation adds, it finds the same."""
    groups = _groups(rows)
    extreme = groups.gather(-1, groups.abs().argmax(dim=-1, keepdim=True))
    best_error = torch.full_like(extreme, float("inf"), dtype=torch.float64)
    best_codes, best_scales = torch.zeros_like(groups, dtype=torch.int8), torch.zeros_like(extreme).half()
    for stretch in INT4_STRETCHES:
        codes = _codes(groups, extreme / -8 * stretch, -8, 7).float()
        products = (groups.double() * codes).sum(-1, keepdim=True)
        squares = codes.square().sum(-1, keepdim=True).double()  # of small integers: exact
        scales = (products / squares.clamp(min=1)).float().half()
        used = scales.double()
        error = used * (used * squares - 2 * products)  # and the sum of squared weights, always the same
        better = error < best_error
        best_error = torch.where(better, error, best_error)
        best_codes = torch.where(better, codes.to(torch.int8), best_codes)
        best_scales = torch.where(better, scales, best_scales)
    return best_codes, best_scales


def _codes(weight: Tensor, scales: Tensor, lowest: int, highest: int) -> Tensor:
    """int8: `weight / scales` to the nearest code; 0 where the scale is 0."""
    exact = torch.where(scales == 0, 0.0, weight / scales)
    return exact.round_().clamp_(lowest, highest).to(torch.int8)


def _groups(rows: Tensor) -> Tensor:
    """float32 [rows, groups, 32], the last group padded with zeros."""
    padding = -rows.shape[1] % GROUP
    return F.pad(rows, (0, padding)).view(len(rows), (rows.shape[1] + padding) // GROUP, GROUP)


_QUANTIZERS = {
    WeightFormat.INT8: _channel_codes,
    WeightFormat.INT8_GROUP: _group_codes,
    WeightFormat.INT4_GROUP: _best_int4,
}
