"""How fast this machine reads memory: the physical ceiling of decoding one stream.

Each decoded token reads every weight once, so tokens/s of one stream cannot pass bandwidth / weight bytes.
The probe reads a buffer as large as the weights (weights that fit the cache get the cache's bandwidth) in
the two ways that torch does best, and keeps the best round: a ceiling is a maximum.

Needs torch: run it as a child process.

    python -m sluice_bench.bandwidth BYTES ROUNDS      prints {"best_gb_s": .., "median_gb_s": ..}
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import msgspec

_COLUMNS = 4096
_FLOAT_BYTES = 4
_SMALL_BYTES = 64 * 1024 * 1024
"""A smaller buffer is read several times a round, or the clock and the call would be measured."""


class Bandwidth(msgspec.Struct, frozen=True, kw_only=True):
    """Read bandwidth in 10^9 bytes per second."""

    buffer_bytes: int
    threads: int
    best_gb_s: float
    median_gb_s: float


def measure(buffer_bytes: int, rounds: int) -> Bandwidth:
    """Read a buffer `rounds` times in each of two ways; torch's own number of threads."""
    import torch

    rows = max(1, buffer_bytes // (_COLUMNS * _FLOAT_BYTES))
    buffer = torch.ones(rows, _COLUMNS)
    vector = torch.ones(_COLUMNS)
    size = rows * _COLUMNS * _FLOAT_BYTES
    repeats = max(1, _SMALL_BYTES // size)
    speeds: list[float] = []
    ways: tuple[Callable[[], object], ...] = (lambda: buffer.sum(), lambda: torch.mv(buffer, vector))
    for read in ways:
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


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(measure(int(sys.argv[1]), int(sys.argv[2]))) + b"\n")
