"""Layers as llm-compressor saves them ("compressed-tensors"), in the two layouts that have a format of ours.

`int-quantized`: `weight` int8 [out, in] and `weight_scale` [out, 1], which is our int8. `pack-quantized`:
`weight_packed` int32 [out, in / 8] of 4-bit numbers, the lowest bits first, each 8 more than its signed
value; `weight_scale` [out, groups]; and, where it is asymmetric, `weight_zero_point` int32 [out / 8, groups],
packed in the same way along the outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sluice_worker.errors import UnsupportedModelError
from sluice_worker.loading.grouped_codes import GroupedCodes, unpack_columns
from sluice_worker.loading.safetensors_source import LayerReader, SafetensorsSource
from sluice_worker.quant.weights import QuantizedWeight, WeightFormat

_LAYOUTS = {("int-quantized", 8, "channel"), ("pack-quantized", 4, "channel"), ("pack-quantized", 4, "group")}
"""Format, bits, and what shares a scale."""


def compressed_tensors_reader(settings: Mapping[str, Any]) -> LayerReader:
    """For a `quantization_config`. Raises `UnsupportedModelError` for what is not one of these layouts."""
    groups = settings.get("config_groups") or {}
    found = [dict(group).get("weights") or {} for group in dict(groups).values()]
    layouts = {(settings.get("format"), w.get("num_bits"), w.get("strategy")) for w in found}
    if len(found) != 1 or not layouts <= _LAYOUTS or found[0].get("actorder") == "group":
        raise UnsupportedModelError(
            "The compressed-tensors weights have another layout than int-quantized with 8 bits per channel "
            "or pack-quantized with 4 bits, without activation order. Use one of these, or the unquantized "
            "model with --quantization int8 or int4."
        )
    size = int(found[0].get("group_size") or 0)

    def read_layer(
        files: SafetensorsSource, layer: str, shape: tuple[int, int]
    ) -> QuantizedWeight | Tensor | None:
        if f"{layer}.weight_packed" in files:
            return _read_packed(files, layer, shape, size if size > 0 else shape[1])
        if f"{layer}.weight_scale" in files:
            scales = files.read(f"{layer}.weight_scale", (shape[0], 1)).float().flatten()
            return QuantizedWeight(WeightFormat.INT8, files.read(f"{layer}.weight", shape, ("I8",)), scales)
        return None

    return read_layer


def _read_packed(
    files: SafetensorsSource, layer: str, shape: tuple[int, int], size: int
) -> QuantizedWeight | Tensor:
    out_features, in_features = shape
    groups = -(-in_features // size)
    if f"{layer}.weight_shape" in files:
        files.read(f"{layer}.weight_shape", (2,), ("I64", "I32"))
    codes = files.read(f"{layer}.weight_packed", (out_features, -(-in_features // 8)), ("I32",))
    zeros = torch.full((out_features, groups), 8, dtype=torch.int32)
    if f"{layer}.weight_zero_point" in files:
        packed = files.read(f"{layer}.weight_zero_point", (-(-out_features // 8), groups), ("I32",))
        zeros = unpack_columns(packed.T.contiguous(), 4).T[:out_features].int()
    return GroupedCodes(
        bits=4,
        size=size,
        codes=unpack_columns(codes, 4)[:, :in_features].contiguous(),
        scales=files.read(f"{layer}.weight_scale", (out_features, groups)),
        zeros=zeros,
    ).weight()
