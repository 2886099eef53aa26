"""Give memory-mapped pages of a file back to the system once what they hold has been packed.

A mapped checkpoint counts as this process's memory wherever it was read, until it is unmapped, and one file
is one mapping: without this a load would peak at the original and the packed weights together.
"""

from __future__ import annotations

import ctypes
import mmap

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
