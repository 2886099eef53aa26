"""Layers quantized ahead by `sluice-worker quantize`: what is computed with, stored as it is.

8 bits: `codes` int8 [out, in] and `scales` float32 [out]. 4 bits: `codes` uint8 [out, ceil(in / 2)], each 8
more than its signed value, the earlier input in the low half of a byte, and `scales` float16 [out, groups] of
32 inputs. The `quantization_config` is `{"quant_method": "sluice", "format": 1, ...}`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sluice_worker.config import QuantizationName
from sluice_worker.errors import CheckpointError, UnsupportedModelError
from sluice_worker.loading.safetensors_source import LayerReader, SafetensorsSource
from sluice_worker.quant.weights import GROUP, QuantizedWeight, WeightFormat

METHOD = "sluice"
FORMAT = 1


def settings(quantization: QuantizationName, original_bytes: int) -> dict[str, Any]:
    """The `quantization_config` of a folder with such layers, made from files of `original_bytes`."""
    facts = {"quantization": quantization, "original_bytes": original_bytes}
    return {"quant_method": METHOD, "format": FORMAT, **facts}


def sluice_reader(config: Mapping[str, Any]) -> LayerReader:
    """For a `quantization_config`. Raises `UnsupportedModelError` for another version."""
    if config.get("format") != FORMAT:
        raise UnsupportedModelError(
            f"The weights were quantized by sluice-worker in format {config.get('format')}; this one reads "
            f"{FORMAT}. Quantize the model again."
        )
    return _read_layer


def layer_tensors(layer: str, weight: QuantizedWeight) -> dict[str, Tensor]:
    """What is stored of a layer."""
    codes = weight.codes
    if weight.format is WeightFormat.INT4_GROUP:
        even = F.pad(codes, (0, codes.shape[1] % 2)).view(torch.uint8) + 8  # modulo 256
        codes = even[:, ::2] | even[:, 1::2] << 4
    return {f"{layer}.codes": codes, f"{layer}.scales": weight.scales}


def _read_layer(files: SafetensorsSource, layer: str, shape: tuple[int, int]) -> QuantizedWeight | None:
    if f"{layer}.codes" not in files:
        return None
    out_features, in_features = shape
    scales = files.read(f"{layer}.scales", None)
    if scales.dim() == 1:
        codes = files.read(f"{layer}.codes", shape, ("I8",))
        return QuantizedWeight(WeightFormat.INT8, codes, scales)
    if scales.shape != (out_features, -(-in_features // GROUP)):
        raise CheckpointError(f"{layer}.scales has shape {list(scales.shape)}, which fits no {list(shape)}.")
    packed = files.read(f"{layer}.codes", (out_features, -(-in_features // 2)), ("U8",))
    codes = torch.stack((packed & 15, packed >> 4), dim=-1).flatten(1).view(torch.int8) - 8
    return QuantizedWeight(WeightFormat.INT4_GROUP, codes[:, :in_features], scales)
