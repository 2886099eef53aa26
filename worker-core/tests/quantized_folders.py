"""Small checkpoints in the formats of other quantizers, each written from the format's own definition.

Beside each goes its twin: a plain checkpoint of the floats that the codes stand for.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

Codes = npt.NDArray[np.int64]
Tensors = dict[str, Tensor]
WriteLayer = Callable[[Tensors, str, Tensor], Tensor]
"""Puts the weight of the layer called so into a checkpoint; returns the floats it stands for."""

AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


def write_folder(
    plain: Path, folder: Path, settings: dict[str, Any], write_layer: WriteLayer, but: tuple[str, ...] = ()
) -> tuple[Path, Path]:
    """A quantized copy of `plain` and its twin. Layers whose name contains one of `but` stay floats."""
    tensors = load_file(plain / "model.safetensors")
    twin = dict(tensors)
    for name in [name for name in tensors if name.endswith("_proj.weight")]:
        if not any(part in name for part in but):
            twin[name] = write_layer(tensors, name.removesuffix(".weight"), tensors.pop(name))
    for path, contents in ((folder / "quantized", tensors), (folder / "twin", twin)):
        shutil.copytree(plain, path)
        save_file({name: t.clone().contiguous() for name, t in contents.items()}, path / "model.safetensors")
    config = json.loads((plain / "config.json").read_text())
    (folder / "quantized" / "config.json").write_text(json.dumps(config | {"quantization_config": settings}))
    return folder / "quantized", folder / "twin"


def unsigned_codes(
    weight: Tensor, bits: int, group_of: Codes, symmetric: bool
) -> tuple[Codes, npt.NDArray[np.float16], Codes]:
    """Round to nearest: codes [out, in], scales and zero points [out, groups]."""
    w = weight.double().numpy()
    most, middle = 2**bits - 1, 2 ** (bits - 1)
    codes = np.zeros(w.shape, np.int64)
    groups = group_of.max() + 1
    scales, zeros = np.zeros((len(w), groups), np.float16), np.zeros((len(w), groups), np.int64)
    for group in range(groups):
        part = w[:, group_of == group]
        low, high = np.minimum(part.min(1), 0), np.maximum(part.max(1), 0)
        step = np.abs(part).max(1) / (middle - 1) if symmetric else (high - low) / most
        scales[:, group] = step
        zeros[:, group] = middle if symmetric else np.clip(np.round(-low / step), 0, most)
        exact = part / scales[:, group, None].astype(np.float64) + zeros[:, group, None]
        codes[:, group_of == group] = np.clip(np.round(exact), 0, most)
    return codes, scales, zeros


def floats(codes: Codes, scales: npt.NDArray[np.float16], zeros: Codes, group_of: Codes) -> Tensor:
    return torch.tensor(
        (codes - zeros[:, group_of]).astype(np.float32) * scales.astype(np.float32)[:, group_of]
    )


def packed(numbers: Codes, bits: int, order: tuple[int, ...] | None = None) -> Tensor:
    """int32 [rows, n * bits / 32]: place i, from the lowest bits on, holds number `order[i]`."""
    each = 32 // bits
    out = np.zeros((len(numbers), numbers.shape[1] // each), np.uint64)
    for column in range(numbers.shape[1] // each):
        for place in range(each):
            number = numbers[:, column * each + (order[place] if order else place)]
            out[:, column] |= number.astype(np.uint64) << np.uint64(bits * place)
    return torch.tensor(out.astype(np.uint32).view(np.int32))


def awq(group_size: int, symmetric: bool = False) -> WriteLayer:
    def write(tensors: Tensors, layer: str, weight: Tensor) -> Tensor:
        group_of = np.arange(weight.shape[1]) // group_size
        codes, scales, zeros = unsigned_codes(weight, 4, group_of, symmetric)
        tensors[f"{layer}.qweight"] = packed(codes.T, 4, AWQ_ORDER)
        tensors[f"{layer}.qzeros"] = packed(zeros.T, 4, AWQ_ORDER)
        tensors[f"{layer}.scales"] = torch.tensor(scales.T.copy())
        return floats(codes, scales, zeros, group_of)

    return write


def gptq(
    bits: int, group_size: int, symmetric: bool, stored_less: int = 1, shuffled: bool = False
) -> WriteLayer:
    def write(tensors: Tensors, layer: str, weight: Tensor) -> Tensor:
        group_of = np.arange(weight.shape[1]) // (group_size if group_size > 0 else weight.shape[1])
        if shuffled:
            group_of = np.random.default_rng(1).permutation(group_of)
        codes, scales, zeros = unsigned_codes(weight, bits, group_of, symmetric)
        tensors[f"{layer}.qweight"] = packed(codes, bits).T
        tensors[f"{layer}.qzeros"] = packed((zeros - stored_less).T % 2**bits, bits)
        tensors[f"{layer}.scales"] = torch.tensor(scales.T.copy())
        tensors[f"{layer}.g_idx"] = torch.tensor(group_of, dtype=torch.int32)
        tensors[f"{layer}.bias"] = torch.zeros(len(weight), dtype=torch.float16)
        return floats(codes, scales, zeros, group_of)

    return write


def compressed_8_bit(tensors: Tensors, layer: str, weight: Tensor) -> Tensor:
    scales = (weight.abs().amax(dim=1, keepdim=True) / 127).bfloat16()
    codes = (weight / scales.float()).round().clamp(-128, 127)
    tensors[f"{layer}.weight"], tensors[f"{layer}.weight_scale"] = codes.to(torch.int8), scales
    return codes * scales.float()


def compressed_4_bit(group_size: int, symmetric: bool) -> WriteLayer:
    def write(tensors: Tensors, layer: str, weight: Tensor) -> Tensor:
        group_of = np.arange(weight.shape[1]) // group_size
        codes, scales, zeros = unsigned_codes(weight, 4, group_of, symmetric)
        tensors[f"{layer}.weight_packed"] = packed(codes, 4)
        tensors[f"{layer}.weight_scale"] = torch.tensor(scales)
        tensors[f"{layer}.weight_shape"] = torch.tensor(weight.shape)
        if not symmetric:
            tensors[f"{layer}.weight_zero_point"] = packed(zeros.T, 4).T
        return floats(codes, scales, zeros, group_of)

    return write


def bitsandbytes_8_bit(tensors: Tensors, layer: str, weight: Tensor) -> Tensor:
    largest = weight.abs().amax(dim=1)
    codes = (weight / largest[:, None] * 127).round()
    tensors[f"{layer}.weight"] = codes.to(torch.int8)
    tensors[f"{layer}.SCB"] = largest
    tensors[f"{layer}.weight_format"] = torch.tensor(0, dtype=torch.uint8)
    return codes * (largest[:, None] / 127)


def bitsandbytes_4_bit(nested: bool) -> WriteLayer:
    table = torch.linspace(-1, 1, 16) ** 3

    def write(tensors: Tensors, layer: str, weight: Tensor) -> Tensor:
        name, blocks = f"{layer}.weight", weight.reshape(-1, 64)
        magnitudes = blocks.abs().amax(dim=1)
        state: dict[str, Any] = {"quant_type": "nf4", "blocksize": 64, "dtype": "float32"}
        state["shape"] = list(weight.shape)
        if nested:
            scale_table = torch.linspace(-1, 1, 256)
            offset = float(magnitudes.mean())
            largest = torch.stack([(part - offset).abs().max() for part in magnitudes.split(256)])
            each = largest.repeat_interleave(256)[: len(magnitudes)]
            scale_codes = ((magnitudes - offset) / each)[:, None].sub(scale_table).abs().argmin(dim=1)
            tensors[f"{name}.absmax"] = scale_codes.to(torch.uint8)
            tensors[f"{name}.nested_absmax"], tensors[f"{name}.nested_quant_map"] = largest, scale_table
            state |= {"nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": offset}
            magnitudes = scale_table[scale_codes] * each + offset
        else:
            tensors[f"{name}.absmax"] = magnitudes
        codes = (blocks / magnitudes[:, None])[:, :, None].sub(table).abs().argmin(dim=2)
        pairs = codes.reshape(-1, 2)
        tensors[name] = (pairs[:, :1] * 16 + pairs[:, 1:]).to(torch.uint8)
        tensors[f"{name}.quant_map"] = table
        described = json.dumps(state).encode()
        tensors[f"{name}.quant_state.bitsandbytes__nf4"] = torch.tensor(list(described), dtype=torch.uint8)
        return (table[codes] * magnitudes[:, None]).reshape(weight.shape)

    return write
