"""The compiled kernels as Python sees them: a ctypes library with declared signatures."""

from __future__ import annotations

import ctypes
from functools import cache

import torch

from sluice_worker.kernels.cpu.build import build

POINTER, INT, FLOAT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
SIGNATURES: dict[str, list[type]] = {
    # outputs, inputs, format, bytes
    "packed_bytes": [INT, INT, INT, POINTER],
    # weight, scales, shifts, packed, outputs, inputs, format
    "pack_weight": [*[POINTER] * 4, *[INT] * 3],
    # weight, codes, scales, outputs, inputs, format, dtype
    "quantize_weight": [*[POINTER] * 3, *[INT] * 4],
    # layer, indices, out, rows, out dtype
    "unpack_rows": [POINTER, POINTER, POINTER, INT, INT],
    # layer, x, out, rows, x dtype, out dtype
    "linear": [POINTER, POINTER, POINTER, INT, INT, INT],
    # queries, count, window, items, totals
    "plan_attention": [POINTER, INT, INT, POINTER, POINTER],
    # query, keys, values, out, items, num_items, tables, partials, finished, heads, kv_heads, head_dim,
    # block_size, window, dtype, cache dtype
    "attention": [*[POINTER] * 5, INT, *[POINTER] * 3, *[INT] * 7],
    # x, weight, out, rows, width, eps, dtype
    "rms_norm": [*[POINTER] * 3, INT, INT, FLOAT, INT],
    # x, residual, weight, total, out, rows, width, eps, dtype
    "add_rms_norm": [*[POINTER] * 5, INT, INT, FLOAT, INT],
    # gate_up, out, rows, width, dtype
    "silu_mul": [POINTER, POINTER, *[INT] * 3],
    # query, key, value, stride, cos_sin, positions, slots, q_norm, k_norm, eps, out, keys, values, rows,
    # heads, kv_heads, head_dim, block_size, dtype, cache dtype
    "rope_and_cache": [*[POINTER] * 3, INT, *[POINTER] * 5, FLOAT, *[POINTER] * 3, *[INT] * 7],
    # table, indices, out, rows, row_bytes
    "embed": [*[POINTER] * 3, INT, INT],
    # cache, pairs, count, block_bytes
    "copy_blocks": [POINTER, POINTER, INT, INT],
    # logits, draws, tokens, rows, size, stride, dtype
    "sample": [*[POINTER] * 3, *[INT] * 4],
    # logits, out, rows, size, stride, dtype
    "log_sum_exp": [POINTER, POINTER, *[INT] * 4],
}
"""Parameters of each operation, as in `ops.h`."""

DTYPES = {torch.float32: 0, torch.bfloat16: 1}
"""`DType` in `ops.h`: of activations."""

CACHE_DTYPES = {**DTYPES, torch.int8: 2}
"""`DType` in `ops.h`: of what a KV cache stores."""


@cache
def library() -> ctypes.CDLL:
    """The library, built if need be. Raises `build.BuildError`."""
    lib = ctypes.CDLL(str(build()))
    lib.sluice_isa.restype = ctypes.c_char_p
    lib.sluice_set_threads.argtypes = [INT]
    lib.sluice_set_threads.restype = None
    lib.sluice_decode.argtypes = [POINTER]
    lib.sluice_decode.restype = None
    for name, parameters in SIGNATURES.items():
        function = getattr(lib, f"sluice_{name}")
        function.argtypes, function.restype = parameters, None
    return lib
