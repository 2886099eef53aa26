"""How fast the kernels are on this machine: what `sluice-worker bench-kernels` measures and prints.

Sizes are those of a 1.1B Llama in bfloat16 (hidden 2048, inner 5632, 32 query and 4 kv heads of 64). Weights
and caches are repeated until the processor's own caches cannot hold them, as in a step over all layers, so
that what a kernel reads comes from memory. Cases take turns and each is given by its median, for a machine is
not equally fast at all times. The roof is what torch reads of a large buffer in the same turns.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sluice_worker.batch import QueryRange
from sluice_worker.kernels.cpu.kernels import CpuKernels
from sluice_worker.kernels.cpu.memory import map_memory
from sluice_worker.kernels.cpu.packed import PackedLinear, pack_linear
from sluice_worker.kernels.interface import CacheShape, Draw, LayerCache
from sluice_worker.quant.weights import QuantizedWeight, WeightFormat

CPU = torch.device("cpu")
BFLOAT16 = torch.bfloat16
HIDDEN, INNER, VOCABULARY = 2048, 5632, 32_000
HEADS, KV_HEADS, HEAD_DIM, BLOCK_SIZE = 32, 4, 64, 32
ROWS = (1, 4, 16, 256)

COLD_BYTES = 128 * 2**20
"""Of operands that take turns: several times the last cache of a desktop or of a slice of a server."""

TURN_S = 0.005
"""A case runs at least this long in each turn."""

ROOF = "read"


class Case(NamedTuple):
    """One operation on one shape; `run` does it once."""

    name: str
    run: Callable[[], object]
    num_bytes: float
    """Read from and written to memory."""
    flops: float = 0


class Figure(NamedTuple):
    """How long a case takes."""

    case: Case
    seconds: float
    """The median of its turns, as are the speeds."""
    best_s: float
    """The fastest turn: what the machine can do when nothing else runs on it."""

    @property
    def gb_s(self) -> float:
        """10^9 bytes per second."""
        return self.case.num_bytes / self.seconds / 1e9


def all_cases(kernels: CpuKernels) -> list[Case]:
    """Everything there is to measure, the roof first."""
    return [
        *_roof(),
        *_linear_cases(kernels),
        *_attention_cases(kernels, BFLOAT16),
        *_attention_cases(kernels, torch.int8),
        *_row_cases(kernels),
        *_sampler_cases(kernels),
        *_copy_cases(kernels),
    ]


def measure(
    cases: Sequence[Case], turns: int, clock: Callable[[], float] = time.perf_counter
) -> list[Figure]:
    """Run each case `turns` times in turn; `clock` in seconds."""
    times: list[list[float]] = [[] for _ in cases]
    counts = [max(1, int(TURN_S / _time(case, 1, clock))) for case in cases]
    for _ in range(turns):
        for case, count, found in zip(cases, counts, times, strict=True):
            found.append(_time(case, count, clock))
    return [
        Figure(case, statistics.median(found), min(found)) for case, found in zip(cases, times, strict=True)
    ]


def render(figures: Sequence[Figure]) -> str:
    """A table in Markdown. Shares are of the fastest reading; what the caches hold can be above it."""
    roof = max(figure.gb_s for figure in figures if figure.case.name.startswith(ROOF))
    lines = ["| kernel | µs | best | GB/s | of the read roof | GFLOP/s |", "|---|--:|--:|--:|--:|--:|"]
    for figure in figures:
        name, _, _, flops = figure.case
        speed = f"{flops / figure.seconds / 1e9:,.0f}" if flops else ""
        share = figure.gb_s / roof
        times = f"{figure.seconds * 1e6:,.0f} | {figure.best_s * 1e6:,.0f}"
        lines.append(f"| {name} | {times} | {figure.gb_s:.1f} | {share:.0%} | {speed} |")
    return "\n".join(lines)


def _time(case: Case, count: int, clock: Callable[[], float]) -> float:
    """Seconds of one run, over `count` of them."""
    began = clock()
    for _ in range(count):
        case.run()
    return (clock() - began) / count


def _roof() -> Iterator[Case]:
    buffer = map_memory(COLD_BYTES).view(torch.float32).view(-1, 4096)
    buffer.fill_(1)
    ones = torch.ones(4096)
    yield Case(f"{ROOF} (sum)", lambda: buffer.sum(), buffer.nbytes)
    yield Case(f"{ROOF} (product)", lambda: buffer @ ones, buffer.nbytes)


def _linear_cases(kernels: CpuKernels) -> Iterator[Case]:
    weight = torch.randn(INNER, HIDDEN) / HIDDEN**0.5
    formats: dict[str, Tensor | QuantizedWeight] = {
        "bfloat16": weight.bfloat16(),
        "int8": kernels.quantize(weight, WeightFormat.INT8),
        "int8 in groups": kernels.quantize(weight, WeightFormat.INT8_GROUP),
        "int4 in groups": kernels.quantize(weight, WeightFormat.INT4_GROUP),
    }
    for name, values in formats.items():
        layers = _copies(pack_linear(values))
        for rows in ROWS:
            x = torch.randn(rows, HIDDEN).bfloat16()
            turn = itertools.cycle(layers)
            yield Case(
                f"linear {name}, {rows} rows",
                lambda turn=turn, x=x: next(turn)(x),  # type: ignore[misc]
                layers[0].nbytes + 2 * rows * (HIDDEN + INNER),
                2 * rows * HIDDEN * INNER,
            )


def _copies(layer: PackedLinear) -> list[PackedLinear]:
    """The layer, and others like it, that do not fit into the caches together."""
    layers = [layer]
    shape = (layer.out_features, layer.in_features)
    while len(layers) * layer.nbytes < COLD_BYTES:
        panels = map_memory(layer.panels.nbytes)
        panels.copy_(layer.panels)
        layers.append(PackedLinear(layer.format, shape, panels, layer.scales, layer.bias))
    return layers


def _attention_cases(kernels: CpuKernels, cache_dtype: torch.dtype) -> Iterator[Case]:
    suffix = ", int8 cache" if cache_dtype == torch.int8 else ""
    batches = {
        "decode 1 of 128": [(1, 128)],
        "decode 1 of 2048": [(1, 2048)],
        "decode 16 of 512": [(1, 512)] * 16,
        "verify 4 of 2048": [(4, 2048)],
        "prefill 512": [(512, 512)],
    }
    for name, requests in batches.items():
        yield _attention_case(kernels, f"attention, {name}{suffix}", requests, cache_dtype)


def _attention_case(
    kernels: CpuKernels, name: str, requests: Sequence[tuple[int, int]], cache_dtype: torch.dtype
) -> Case:
    """`requests`: query rows and context of each."""
    context = sum(tokens for _, tokens in requests)
    blocks = torch.randperm(context // BLOCK_SIZE).tolist()
    caches = _filled_caches(kernels, len(blocks), cache_dtype)
    ranges, row = [], 0
    for rows, tokens in requests:
        ranges.append(QueryRange(row, rows, tokens, [blocks.pop() for _ in range(tokens // BLOCK_SIZE)]))
        row += rows
    plan = kernels.plan_attention(ranges, BLOCK_SIZE, frozenset({None}), CPU)
    query = torch.randn(row, HEADS, HEAD_DIM).bfloat16()
    turn = itertools.cycle(caches)
    seen = sum(rows * (tokens - (rows - 1) / 2) for rows, tokens in requests)
    return Case(
        name,
        lambda: kernels.attention(query, next(turn), plan, None),
        caches[0].keys.nbytes + caches[0].values.nbytes,
        4 * HEADS * HEAD_DIM * seen,
    )


def _filled_caches(kernels: CpuKernels, num_blocks: int, dtype: torch.dtype) -> list[LayerCache]:
    """Caches with tokens in every slot, too many for the processor's own."""
    shape = CacheShape(num_blocks, BLOCK_SIZE, KV_HEADS, HEAD_DIM)
    cache = kernels.allocate_cache(shape, dtype, CPU)
    slots = torch.arange(num_blocks * BLOCK_SIZE)
    query, key, value = (torch.randn(len(slots), KV_HEADS, HEAD_DIM).bfloat16() for _ in range(3))
    positions, cos_sin = torch.zeros_like(slots), torch.ones(1, HEAD_DIM)
    kernels.rope_and_cache(query, key, value, cos_sin, positions, slots, cache)
    caches = [cache]
    while len(caches) * 2 * cache.keys.nbytes < COLD_BYTES:
        caches.append(kernels.allocate_cache(shape, dtype, CPU))
        for target, source in zip(caches[-1], cache, strict=True):
            target.copy_(source)
    return caches


def _row_cases(kernels: CpuKernels) -> Iterator[Case]:
    weight = torch.randn(HIDDEN).bfloat16()
    for rows in (1, 256):
        x, residual = torch.randn(2, rows, HIDDEN).bfloat16()
        gate_up = torch.randn(rows, 2 * INNER).bfloat16()
        yield Case(
            f"add_rms_norm, {rows} rows",
            lambda x=x, residual=residual: kernels.add_rms_norm(x, residual, weight, 1e-5),  # type: ignore[misc]
            4 * x.nbytes,
        )
        yield Case(
            f"silu_mul, {rows} rows",
            lambda gate_up=gate_up: kernels.silu_mul(gate_up),  # type: ignore[misc]
            1.5 * gate_up.nbytes,
        )


def _sampler_cases(kernels: CpuKernels) -> Iterator[Case]:
    logits = 3 * torch.randn(16, VOCABULARY)
    ways = {
        "greedy": Draw(0.0, 0, 1.0, 0.0, 1),
        "all tokens": Draw(1.0, 0, 1.0, 0.0, 1),
        "top-k 50": Draw(1.0, 50, 1.0, 0.0, 1),
        "top-p 0.9": Draw(1.0, 0, 0.9, 0.0, 1),
    }
    for name, draw in ways.items():
        draws = [draw] * len(logits)
        yield Case(
            f"sample 16 rows, {name}",
            lambda draws=draws: kernels.sample(logits, draws),  # type: ignore[misc]
            logits.nbytes,
        )


def _copy_cases(kernels: CpuKernels) -> Iterator[Case]:
    cache = kernels.allocate_cache(CacheShape(4096, BLOCK_SIZE, KV_HEADS, HEAD_DIM), BFLOAT16, CPU)
    for tensor in cache:
        tensor.fill_(1)
    sources, targets = list(range(0, 4096, 2)), list(range(1, 4096, 2))
    yield Case(
        "copy_blocks",
        lambda: kernels.copy_blocks(cache, sources, targets),
        cache.keys.nbytes + cache.values.nbytes,
    )
