"""Layers as AutoAWQ writes them in its `gemm` layout (Lin et al., "AWQ", 2023).

`qweight` int32 [in, out / 8] and `qzeros` int32 [groups, out / 8] hold eight 4-bit numbers in each, those of
eight neighbouring outputs in the order 0 2 4 6 1 3 5 7; `scales` is [groups, out]. A weight is
`scale * (code - zero)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sluice_worker.errors import UnsupportedModelError
from sluice_worker.loading.grouped_codes import GroupedCodes, group_size
from sluice_worker.loading.safetensors_source import LayerReader, SafetensorsSource
from sluice_worker.quant.weights import QuantizedWeight

_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


def awq_reader(settings: Mapping[str, Any]) -> LayerReader:
    """For a `quantization_config`. Raises `UnsupportedModelError` for what is not this layout."""
    bits, version = settings.get("bits", settings.get("w_bit")), str(settings.get("version", "gemm")).lower()
    if bits != 4 or version != "gemm":
        raise UnsupportedModelError(
            f"The AWQ weights have {bits} bits in the layout {version}; 4 bits in the layout gemm are "
            "supported. Use a checkpoint in that layout, or the unquantized one with --quantization int4."
        )

    def read_layer(
        files: SafetensorsSource, layer: str, shape: tuple[int, int]
    ) -> QuantizedWeight | Tensor | None:
        if f"{layer}.qweight" not in files:
            return None
        return _read_layer(files, layer, shape, group_size(settings, shape[1]))

    return read_layer


def _read_layer(
    files: SafetensorsSource, layer: str, shape: tuple[int, int], size: int
) -> QuantizedWeight | Tensor:
    out_features, in_features = shape
    groups = -(-in_features // size)
    codes = files.read(f"{layer}.qweight", (in_features, out_features // 8), ("I32",))
    zeros = files.read(f"{layer}.qzeros", (groups, out_features // 8), ("I32",))
    scales = files.read(f"{layer}.scales", (groups, out_features))
    return GroupedCodes(
        bits=4,
        size=size,
        codes=_unpacked(codes),
        scales=scales.T,
        zeros=_unpacked(zeros).int(),
    ).weight()


def _unpacked(packed: Tensor) -> Tensor:
    """int32 [n, out / 8] to uint8 [out, n]."""
    by_output = packed.T.contiguous()
    out = torch.empty(len(by_output), 8, by_output.shape[1], dtype=torch.uint8)
    for place, output in enumerate(_ORDER):
        out[:, output] = by_output >> (4 * place) & 15
    return out.flatten(0, 1)
