"""Give memory back to the system while a model is loaded, so that a load peaks little above the model's size.

A mapped checkpoint counts as this process's memory wherever it was read, until it is unmapped, and one file
is one mapping. And glibc, once a large block was freed, takes the next ones from a heap that it cannot give
back while anything small lies above them: a load of many large temporaries can keep half as much again.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor


def drop_pages(mapped: Tensor) -> None:
    """Drop the whole pages under a tensor that lies in a mapped file and was never written to.

    The tensor stays valid: what is read again is read from the file again. Does nothing where the system
    cannot do this. Never for other memory, which would become zeros.
    """
    advice = getattr(mmap, "MADV_DONTNEED", None)
    if advice is None:
        return
    first = -(-mapped.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    end = (mapped.data_ptr() + mapped.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
    if end > first:
        ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(end - first), advice)


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LOADING_BYTES, _SERVING_BYTES = 2**20, 2**25


@contextmanager
def freed_at_once() -> Iterator[None]:
    """Inside, every block of a megabyte and more comes from the system and goes back to it when freed.

    Afterwards only those of 32 megabytes and more do, which is the most that glibc would settle on: a step's
    temporaries should not be mapped anew each time. Does nothing with another C library.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        yield
        return
    mallopt(_M_MMAP_THRESHOLD, _LOADING_BYTES)
    try:
        yield
    finally:
        mallopt(_M_MMAP_THRESHOLD, _SERVING_BYTES)
        mallopt(_M_TRIM_THRESHOLD, 2 * _SERVING_BYTES)
