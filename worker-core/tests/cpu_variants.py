"""The CPU kernels with a forced instruction set: each in its own copy of the library, which chooses once."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import pytest
import torch

from sluice_worker.kernels.cpu import library as cpu_library
from sluice_worker.kernels.cpu.build import build, find_compiler
from sluice_worker.kernels.cpu.kernels import CpuKernels
from sluice_worker.kernels.interface import LayerCache

ISAS = ("avx512", "avx2", "plain")


@cache
def forced_kernels(isa: str) -> CpuKernels:
    """Kernels compiled for `isa`. Skips the test where they cannot be built, or this CPU cannot run them."""
    if find_compiler() is None:
        pytest.skip("no C++ compiler")
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, {"SLUICE_CPU_ISA": isa}):
        copy = shutil.copy(build(), Path(folder) / f"{isa}.so")
        with mock.patch.object(cpu_library, "build", lambda: copy):
            lib = cpu_library.library.__wrapped__()
        chosen = lib.sluice_isa().decode()
    if chosen != isa:
        pytest.skip(f"this CPU cannot run {isa}")
    return CpuKernels(lib)


def set_threads(kernels: CpuKernels, threads: int) -> None:
    kernels._lib.sluice_set_threads(threads)


def write_slots(
    cache: LayerCache, slots: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, activations: torch.dtype
) -> None:
    """Write tokens, [tokens, kv heads, head_dim] as the reference stores them, where `attention.h` says that
    they belong."""
    view = layout_of(cache, activations)
    panel, pack = view.keys.shape[4:]
    size = view.keys.shape[2] * panel
    blocks, offsets = slots // size, slots % size
    if view.scales is not None:
        for scales, heads in zip(view.scales, (keys, values), strict=True):
            scales[blocks, :, offsets] = heads[..., -4:].contiguous().view(torch.float32)[..., 0]
        keys, values = keys[..., :-4], values[..., :-4]
    pairs = keys.unflatten(2, (-1, pack))
    view.keys[blocks, :, offsets // panel, : pairs.shape[2], offsets % panel] = pairs
    view.values[blocks, :, offsets // pack, : values.shape[2], offsets % pack] = values


class CacheView(NamedTuple):
    """The numbers of a cache, see `attention.h`."""

    keys: torch.Tensor
    """[blocks, kv heads, panels, packs of a head, tokens of a panel, numbers of a pack]."""
    values: torch.Tensor
    """[blocks, kv heads, packs of tokens, numbers of a head, tokens of a pack]."""
    scales: tuple[torch.Tensor, torch.Tensor] | None
    """Of keys and values if they are codes: [blocks, kv heads, tokens]."""


def layout_of(cache: LayerCache, activations: torch.dtype) -> CacheView:
    """Views of a cache that is used with `activations`."""
    if cache.keys.dtype != torch.int8:
        return CacheView(cache.keys, cache.values, None)
    _, _, size, width = cache.keys.shape
    width, pack, panel = width - 4, 4 // activations.itemsize, math.gcd(size, 16)
    codes = [tensor.flatten(2)[..., : size * width] for tensor in cache]
    key_scales, value_scales = (
        tensor.flatten(2)[..., size * width :].view(torch.float32) for tensor in cache
    )
    return CacheView(
        codes[0].unflatten(2, (size // panel, width // pack, panel, pack)),
        codes[1].unflatten(2, (size // pack, width, pack)),
        (key_scales, value_scales),
    )
