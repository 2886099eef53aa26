"""How fast this machine reads memory: the physical ceiling of decoding one stream.

Each decoded token reads every weight once, so tokens/s of one stream cannot pass bandwidth / weight bytes.
The probe reads a buffer as large as the weights (weights that fit the cache get the cache's bandwidth) in
the two ways that torch does best, and, where there is a C compiler, in a loop of its own over huge pages; it
keeps the best round: a ceiling is a maximum.

Needs torch: run it as a child process.

    python -m sluice_bench.bandwidth BYTES ROUNDS      prints {"best_gb_s": .., "median_gb_s": ..}
"""

from __future__ import annotations

import ctypes
import gc
import mmap
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

_COLUMNS = 4096
_FLOAT_BYTES = 4
_SMALL_BYTES = 64 * 1024 * 1024
"""A smaller buffer is read several times a round, or the clock and the call would be measured."""


_LOOP = """
#include <stddef.h>
#include <stdint.h>
uint64_t read_all(const uint64_t *words, size_t count) {
    uint64_t total = 0;
    #pragma omp parallel for schedule(static) reduction(+ : total)
    for (size_t index = 0; index < count; ++index) total += words[index];
    return total;
}
"""
_COMPILE = ("cc", "-O3", "-march=native", "-fopenmp", "-shared", "-fPIC", "-x", "c", "-")


class Bandwidth(msgspec.Struct, frozen=True, kw_only=True):
    """Read bandwidth in 10^9 bytes per second."""

    buffer_bytes: int
    threads: int
    best_gb_s: float
    median_gb_s: float


def measure(buffer_bytes: int, rounds: int) -> Bandwidth:
    """Read a buffer `rounds` times in each way; torch's own number of threads, and OpenMP's."""
    import torch

    rows = max(1, buffer_bytes // (_COLUMNS * _FLOAT_BYTES))
    buffer = torch.ones(rows, _COLUMNS)
    vector = torch.ones(_COLUMNS)
    size = rows * _COLUMNS * _FLOAT_BYTES
    repeats = max(1, _SMALL_BYTES // size)
    speeds: list[float] = []
    ways: list[Callable[[], object]] = [lambda: buffer.sum(), lambda: torch.mv(buffer, vector)]
    for read in [*ways, *compiled_readers(size)]:
        read()
        for _ in range(rounds):
            start = time.perf_counter()
            for _ in range(repeats):
                read()
            speeds.append(size * repeats / (time.perf_counter() - start) / 1e9)
    return Bandwidth(
        buffer_bytes=size,
        threads=torch.get_num_threads(),
        best_gb_s=max(speeds),
        median_gb_s=statistics.median(speeds),
    )


def compiled_readers(size: int) -> list[Callable[[], object]]:
    """One loop over `size` bytes of huge pages; none without a compiler that can make it."""
    if shutil.which(_COMPILE[0]) is None:
        return []
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as name:
        library = Path(name) / "read.so"
        command = [*_COMPILE, "-o", str(library)]
        if subprocess.run(command, input=_LOOP.encode(), capture_output=True, check=False).returncode != 0:
            return []
        read_all = ctypes.CDLL(str(library)).read_all
    read_all.argtypes, read_all.restype = (ctypes.c_void_p, ctypes.c_size_t), ctypes.c_uint64
    pages = mmap.mmap(-1, size)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        pages.madvise(mmap.MADV_HUGEPAGE)
    buffer = (ctypes.c_char * size).from_buffer(pages)
    ctypes.memset(buffer, 1, size)  # pages that were never written are all one page of zeros
    return [lambda: read_all(buffer, size // 8)]


if __name__ == "__main__":
    gc.disable()  # torch is full of objects that stay: looking for cycles among them is a fifth of loading it
    sys.stdout.buffer.write(msgspec.json.encode(measure(int(sys.argv[1]), int(sys.argv[2]))) + b"\n")
