"""Linear layers over packed weights. The layouts, and why a row's result is its own, are in the C++ headers.

Packing copies: the original weight can be dropped afterwards, and `unpack` gives back any of its rows.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from sluice_worker.kernels.cpu.library import DTYPES, INT, POINTER, library
from sluice_worker.kernels.cpu.memory import map_memory
from sluice_worker.quant.weights import GROUP, QuantizedWeight, WeightFormat

PLAIN_FORMATS = {torch.float32: WeightFormat.FLOAT32, torch.bfloat16: WeightFormat.BFLOAT16}
"""Formats of weights that are not quantized."""


class _Layer(ctypes.Structure):
    """`PackedLinear` in `ops.h`."""

    _fields_ = (
        ("panels", POINTER),
        ("scales", POINTER),
        ("bias", POINTER),
        ("inputs", INT),
        ("outputs", INT),
        ("format", INT),
    )


class PackedLinear:
    """A weight [out, in] in panels, and what is added to its products."""

    def __init__(
        self,
        weight_format: WeightFormat,
        shape: tuple[int, int],
        panels: Tensor,
        scales: Tensor | None,
        bias: Tensor | None,
    ) -> None:
        """`panels` uint8, see `weight_formats.h`; `scales` (for `INT8`) and `bias` float32 [out]."""
        self.format = weight_format
        self.out_features, self.in_features = shape
        self.panels, self.scales, self.bias = panels, scales, bias
        self._layer = _Layer(
            panels.data_ptr(),
            _pointer(scales),
            _pointer(bias),
            self.in_features,
            self.out_features,
            self.format,
        )
        self.address = ctypes.addressof(self._layer)
        self._lib = library()

    @property
    def nbytes(self) -> int:
        """Memory it holds, and what one use of the layer reads."""
        return sum(part.nbytes for part in (self.panels, self.scales, self.bias) if part is not None)

    def __call__(self, x: Tensor, out_dtype: torch.dtype | None = None) -> Tensor:
        """`x @ weight.T + bias`: [rows, in] to [rows, out], in the type of `x` unless asked otherwise.

        Sums are float32 (int32 between codes) and rounded once. Activations are rounded to bfloat16 for a
        bfloat16 weight, and to 8 bits per row (`INT8`) or per 32 inputs for the other quantized ones.
        """
        rows, in_features = x.shape
        if in_features != self.in_features:
            raise ValueError(f"The input is [{rows}, {in_features}]; it must be [rows, {self.in_features}].")
        x = x.contiguous()
        in_dtype = x.dtype
        out_dtype = out_dtype or in_dtype
        out = torch.empty(rows, self.out_features, dtype=out_dtype)
        self._lib.sluice_linear(
            self.address, x.data_ptr(), out.data_ptr(), rows, DTYPES[in_dtype], DTYPES[out_dtype]
        )
        return out

    def unpack(self, rows: Tensor, dtype: torch.dtype) -> Tensor:
        """Rows of the weight, dequantized: `rows` int64 [n], each below `out_features`, to [n, in].

        The embedding of a model whose output layer is its embedding table.
        """
        rows = rows.contiguous()
        out = torch.empty(len(rows), self.in_features, dtype=dtype)
        self._lib.sluice_unpack_rows(self.address, rows.data_ptr(), out.data_ptr(), len(rows), DTYPES[dtype])
        return out


def pack_linear(weight: Tensor | QuantizedWeight, bias: Tensor | None = None) -> PackedLinear:
    """Pack a weight [out, in] of float32, of bfloat16, or quantized. `bias` [out] may have any float type."""
    if isinstance(weight, QuantizedWeight):
        return _pack(weight.format, weight.codes, weight.scales, weight.shifts, bias)
    return _pack(PLAIN_FORMATS[weight.dtype], weight, None, None, bias)


def quantize_linear(weight: Tensor, weight_format: WeightFormat, lib: ctypes.CDLL) -> QuantizedWeight:
    """What `quant.weights.quantize_weight` returns, bit for bit. Raises `KeyError` for other formats."""
    groups = -(-weight.shape[1] // GROUP)
    scales = {
        WeightFormat.INT8: weight.new_empty(len(weight), dtype=torch.float32),
        WeightFormat.INT8_GROUP: weight.new_empty((len(weight), groups), dtype=torch.float16),
        WeightFormat.INT4_GROUP: weight.new_empty((len(weight), groups), dtype=torch.float16),
    }[weight_format]
    floats = (weight if weight.dtype in DTYPES else weight.float()).contiguous()
    codes = torch.empty(weight.shape, dtype=torch.int8)
    lib.sluice_quantize_weight(
        floats.data_ptr(),
        codes.data_ptr(),
        scales.data_ptr(),
        *weight.shape,
        weight_format,
        DTYPES[floats.dtype],
    )
    return QuantizedWeight(weight_format, codes, scales, dtype=weight.dtype)


def _pack(
    weight_format: WeightFormat,
    values: Tensor,
    scales: Tensor | None,
    shifts: Tensor | None,
    bias: Tensor | None,
) -> PackedLinear:
    values, scales, shifts = values.contiguous(), _contiguous(scales), _contiguous(shifts)
    out_features, in_features = values.shape
    size = ctypes.c_int64()
    library().sluice_packed_bytes(out_features, in_features, weight_format, ctypes.byref(size))
    panels = map_memory(size.value)
    library().sluice_pack_weight(
        values.data_ptr(),
        _pointer(scales),
        _pointer(shifts),
        panels.data_ptr(),
        out_features,
        in_features,
        weight_format,
    )
    per_output = scales if weight_format is WeightFormat.INT8 else None
    bias = None if bias is None else bias.float().contiguous()
    return PackedLinear(weight_format, (out_features, in_features), panels, per_output, bias)


def _contiguous(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
