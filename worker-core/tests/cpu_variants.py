"""The CPU kernels with a forced instruction set: each in its own copy of the library, which chooses once."""

from __future__ import annotations

import os
import shutil
import tempfile
from functools import cache
from pathlib import Path
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


def write_slot(cache: LayerCache, slot: int, key: torch.Tensor, value: torch.Tensor) -> None:
    """Write one token, `key` and `value` [kv heads, D], where `attention.h` says it belongs."""
    panel, pack = cache.keys.shape[4:]
    block, offset = divmod(slot, cache.keys.shape[2] * panel)
    pairs = key.view(len(key), -1, pack)
    cache.keys[block, :, offset // panel, : pairs.shape[1], offset % panel] = pairs
    cache.values[block, :, offset // pack, : value.shape[1], offset % pack] = value
