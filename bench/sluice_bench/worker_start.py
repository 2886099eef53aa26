"""How long a worker takes from its start to its first token, and how much memory it ever had.

Every start measured comes after another, which has kept its packed weights on disk. A cold start is one whose
files are not in the system's page cache, as after a boot: what the earlier start mapped or opened
(checkpoint, packed weights, libraries) is dropped from it first, as far as no other process holds it. A warm
start finds them there.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

from sluice_bench.processes import ForeignCpu, ServerFailed, ServerProcess
from sluice_bench.worker_loads import Prompts, problem_of, requested
from sluice_bench.worker_plan import Row, Start, Step
from sluice_bench.worker_targets import Site, await_packed, server_of

_PROMPT_TOKENS, _LOAD_STREAMS, _LOAD_TOKENS = 16, 16, 128
_KV_BYTES = 64 * 2**20
"""Hardly more than the load fills of the largest shape: memory that is only reserved is not resident."""
_LARGE_FILE_BYTES = 16 * 2**20


def measure_start(step: Step, shape: str, site: Site, prompts: Prompts, draw: str, repeat: int) -> Row:
    """Start, ask for one token, then for some at sixteen streams, for the peak. Raises `ServerFailed`."""
    with server_of(step.contestant, shape, site, _KV_BYTES) as earlier:
        await_packed(site)
        files = [*_files(earlier), *site.checkpoint(shape).iterdir(), *site.packed.glob("*")]
    if isinstance(step.load, Start) and step.load.cold:
        forget(files)
    foreign = ForeignCpu(os.getpid())
    server = server_of(step.contestant, shape, site, _KV_BYTES)
    began = time.monotonic()
    with server:
        ready_s = time.monotonic() - began
        [record] = requested(server.url, prompts.draw(draw, 1, _PROMPT_TOKENS), 1, 1)
        first_token_s = time.monotonic() - began
        foreign_cores = foreign.cores()
        problem = problem_of(record, _PROMPT_TOKENS, 1)
        drawn = prompts.draw(f"{draw} load", _LOAD_STREAMS, _LOAD_TOKENS)
        loaded = requested(server.url, drawn, 4, _LOAD_STREAMS)
        problem = next(filter(None, (problem_of(r, _LOAD_TOKENS, 4) for r in loaded)), problem)
        peak = server.peak_resident_bytes()
    figures = {
        "ready_s": ready_s,
        "first_token_s": first_token_s,
        "peak_mb": peak / 1e6,
        "kv_mb": _KV_BYTES / 1e6,
    }
    return Row(
        contestant=step.contestant,
        label=step.label,
        repeat=repeat,
        figures=figures,
        problem=problem,
        foreign_cores=foreign_cores,
    )


def forget(files: Iterable[Path]) -> None:
    """Drop files from the system's page cache, where it can be asked to and nobody holds them."""
    if not hasattr(os, "posix_fadvise"):
        return
    os.sync()
    for path in files:
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)


def _files(server: ServerProcess) -> set[Path]:
    """Large files that the server's processes have mapped or open. Raises `ServerFailed`."""
    found: set[Path] = set()
    try:
        for process in server.processes():
            found |= {Path(mapped.path) for mapped in process.memory_maps()}
            found |= {Path(opened.path) for opened in process.open_files()}
    except psutil.Error as error:
        raise ServerFailed(f"the server's files cannot be listed: {error}") from error
    return {path for path in found if path.is_file() and path.stat().st_size >= _LARGE_FILE_BYTES}
