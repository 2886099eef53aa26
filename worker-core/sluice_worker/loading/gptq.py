"""Layers as AutoGPTQ and GPTQModel write them (Frantar et al., "GPTQ", 2022).

`qweight` int32 [in * bits / 32, out] holds neighbouring inputs, the lowest bits first; `qzeros` int32
[groups, out * bits / 32] neighbouring outputs; `scales` is [groups, out]; `g_idx` [in] says the group of each
input. A weight is `scale * (code - zero)`, and the first version of the format stores `zero - 1`.

With `desc_act` the groups of neighbouring inputs differ, which no packed format holds: such a layer becomes
floats.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sluice_worker.errors import CheckpointError, UnsupportedModelError
from sluice_worker.loading.grouped_codes import GroupedCodes, group_size, unpack_columns
from sluice_worker.loading.safetensors_source import LayerReader, SafetensorsSource
from sluice_worker.quant.weights import QuantizedWeight

_STORED_LESS = {"gptq": 1, "gptq_v2": 0}
"""By version of the format: how much less than the zero point is stored."""


def gptq_reader(settings: Mapping[str, Any]) -> LayerReader:
    """For a `quantization_config`. Raises `UnsupportedModelError` for what is not this layout."""
    bits, layout = settings.get("bits"), str(settings.get("checkpoint_format") or "gptq")
    packed_in = str(settings.get("pack_dtype") or "int32")
    if bits not in (4, 8) or layout not in _STORED_LESS or packed_in != "int32":
        raise UnsupportedModelError(
            f"The GPTQ weights have {bits} bits in the layout {layout}, packed in {packed_in}; 4 or 8 bits "
            f"in the layouts {' and '.join(_STORED_LESS)}, packed in int32, are supported. Use the "
            "unquantized checkpoint with --quantization int4."
        )
    stored_less = _STORED_LESS[layout]

    def read_layer(
        files: SafetensorsSource, layer: str, shape: tuple[int, int]
    ) -> QuantizedWeight | Tensor | None:
        if f"{layer}.qweight" not in files:
            return None
        return _read_layer(files, layer, shape, bits, group_size(settings, shape[1]), stored_less)

    return read_layer


def _read_layer(
    files: SafetensorsSource, layer: str, shape: tuple[int, int], bits: int, size: int, stored_less: int
) -> QuantizedWeight | Tensor:
    out_features, in_features = shape
    groups = -(-in_features // size)
    codes = files.read(f"{layer}.qweight", (in_features * bits // 32, out_features), ("I32",))
    zeros = files.read(f"{layer}.qzeros", (groups, out_features * bits // 32), ("I32",))
    scales = files.read(f"{layer}.scales", (groups, out_features))
    return GroupedCodes(
        bits=bits,
        size=size,
        codes=unpack_columns(codes.T.contiguous(), bits),
        scales=scales.T,
        zeros=(unpack_columns(zeros, bits).T.int() + stored_less) % 2**bits,
        group_of=_unordered_groups(files, layer, in_features, size),
    ).weight()


def _unordered_groups(files: SafetensorsSource, layer: str, in_features: int, size: int) -> Tensor | None:
    """int64 [in], unless groups are stretches of `size`."""
    if f"{layer}.g_idx" not in files:
        return None
    group_of = files.read(f"{layer}.g_idx", (in_features,), ("I32", "I64")).long()
    if group_of.min() < 0 or group_of.max() * size >= in_features:
        raise CheckpointError(f"{layer}.g_idx names groups of inputs that {layer}.scales does not have.")
    return None if torch.equal(group_of, torch.arange(in_features) // size) else group_of
