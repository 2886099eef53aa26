"""Pages of files and of memory: give them back while a model is loaded, so that a load peaks little above the
model's size, and have mapped weights in large ones.

A mapped checkpoint counts as this process's memory wherever it was read, until it is unmapped, and one file
is one mapping. And glibc, once a large block was freed, takes the next ones from a heap that it cannot give
back while anything small lies above them: a load of many large temporaries can keep half as much again.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from sluice_worker.kernels.cpu.memory import map_memory


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


_COPY_BYTES, _HUGE_PAGE = 2**25, 2**21


def in_fast_memory(mapped: Tensor, size: int) -> Tensor:
    """A mapped file, uint8 [bytes], whose first `size` bytes are in memory: itself if these lie in huge
    pages, else a copy that does. The rest, tables of which few rows are used, comes as it is touched.

    With small pages a step that reads all weights takes 15 % longer. Whether a file gets huge ones is up to
    its file system, and to how it came into the page cache.
    """
    size = size // _HUGE_PAGE * _HUGE_PAGE
    _advise(mapped[:size], "MADV_HUGEPAGE")
    _advise(mapped[size:], "MADV_NOHUGEPAGE")
    mapped[: size : mmap.PAGESIZE].sum()  # touches every page
    huge = _huge_bytes(mapped)
    if huge is None or huge >= size // 2:
        return mapped
    copy = map_memory(mapped.nbytes)
    for first in range(0, mapped.nbytes, _COPY_BYTES):
        part = mapped[first : first + _COPY_BYTES]
        copy[first : first + _COPY_BYTES] = part
        drop_pages(part)
    return copy


def _advise(mapped: Tensor, name: str) -> None:
    """Tell the system about whole pages of a mapping that start where the tensor does; it may not listen."""
    advice = getattr(mmap, name, None)
    if advice is not None and mapped.nbytes:
        ctypes.CDLL(None).madvise(ctypes.c_void_p(mapped.data_ptr()), ctypes.c_size_t(mapped.nbytes), advice)


def _huge_bytes(mapped: Tensor) -> int | None:
    """Bytes of a mapping that lie in huge pages; `None` where the system does not say."""
    smaps, start = Path("/proc/self/smaps"), f"{mapped.data_ptr():x}-"
    if not smaps.is_file():
        return None
    inside = False
    for line in smaps.read_text().splitlines():
        name, _, value = line.partition(":")
        if " " in name:
            inside = line.startswith(start)
        elif inside and name == "FilePmdMapped":
            return int(value.split()[0]) * 1024
    return None


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LOADING_BYTES, _SERVING_BYTES = 2**20, 2**25


@contextmanager
def freed_at_once() -> Iterator[None]:
    """Inside, every block of a megabyte and more comes from the system and goes back to it when freed.

    Afterwards only those of 32 megabytes and more do, which is the most that glibc would settle on: a step's
    temporaries should not be mapped anew each time. What is free by then goes back too. Does nothing with
    another C library.
    """
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):
        yield
        return
    libc.mallopt(_M_MMAP_THRESHOLD, _LOADING_BYTES)
    try:
        yield
    finally:
        libc.mallopt(_M_MMAP_THRESHOLD, _SERVING_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, 2 * _SERVING_BYTES)
        libc.malloc_trim(0)
