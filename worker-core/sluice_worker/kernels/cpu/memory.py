"""Memory for large tensors, straight from the system: zeroed, and in huge pages where there are any."""

from __future__ import annotations

import mmap
from array import array

import torch
from torch import Tensor


def map_memory(num_bytes: int) -> Tensor:
    """uint8 [num_bytes] of zeros. Pages are taken when first written, and given back with the tensor.

    Weights in huge pages read 5-10 % faster. The mapping must be private: Python's default is shared memory,
    which gets no huge pages.
    """
    if num_bytes == 0:
        return torch.empty(0, dtype=torch.uint8)
    memory = mmap.mmap(-1, num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=torch.uint8)


def address_of(values: array[int]) -> int:
    """Where the numbers of an array lie, until it changes its size."""
    return values.buffer_info()[0]
