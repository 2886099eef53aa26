"""`Kernels` on the compiled library: shapes, strides and scratch memory here, arithmetic in C++.

Every row's result is the same bits whatever else is in the batch, however a prompt was cut into chunks, and
on any number of threads. Tensors are float32 or bfloat16, on the CPU. The layout of the cache is described
in `attention.h`.
"""

from __future__ import annotations

import ctypes
import math
import struct
from array import array
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sluice_worker.batch import QueryRange
from sluice_worker.kernels.cpu.cache import LANES, allocate_cache, block_size_of
from sluice_worker.kernels.cpu.decoder import FusedLayers
from sluice_worker.kernels.cpu.library import CACHE_DTYPES, DTYPES, library
from sluice_worker.kernels.cpu.memory import address_of
from sluice_worker.kernels.cpu.packed import PackedLinear, pack_linear, quantize_linear
from sluice_worker.kernels.interface import (
    CacheShape,
    Draw,
    LayerCache,
    LayerShape,
    LayerStack,
    LayerWeights,
    PackedParts,
    QKNorm,
)
from sluice_worker.quant.weights import QuantizedWeight, WeightFormat

QUERY_TILE = 16
SPLIT = 512
"""`kQueryTile` and `kSplit` in `attention.h`: how many items a step can need."""

_ITEM_INTS = 10
_STATE_EXTRA = 2 * LANES
_DRAW = struct.Struct("=fiddQ")


class WindowPlan:
    """The items of one step for layers with the same sliding window, and the memory they share."""

    def __init__(self, lib: ctypes.CDLL, queries: array[int], window: int | None) -> None:
        """`queries`: first row, rows, context and start of the block table of each request."""
        count = len(queries) // 4
        lengths, contexts = queries[1::4], queries[2::4]
        most = sum(lengths) // QUERY_TILE + sum(contexts) // SPLIT + 2 * count
        self.items = array("i", bytes(4 * _ITEM_INTS * most))
        totals = array("q", (0, 0, 0))
        lib.sluice_plan_attention(
            address_of(queries), count, window or 0, address_of(self.items), address_of(totals)
        )
        self.num_items, self._partial_rows, self._groups = totals
        self._workspace: tuple[Tensor, Tensor] | None = None

    def workspace(self, heads: int, kv_heads: int, head_dim: int) -> tuple[Tensor, Tensor]:
        """Partial results, and counters of finished items that are zero between calls."""
        state = -(-head_dim // LANES) * LANES + _STATE_EXTRA
        if self._workspace is None or self._workspace[0].shape[1:] != (heads, state):
            self._workspace = (
                torch.empty(self._partial_rows, heads, state),
                torch.zeros(self._groups, kv_heads, dtype=torch.int32),
            )
        return self._workspace


class AttentionPlan(NamedTuple):
    """What attention needs to know of a step, in every layer."""

    tables: array[int]
    """The block ids of all requests, end to end."""
    windows: dict[int | None, WindowPlan]


class CpuKernels:
    """The operations of `kernels.interface.Kernels` in C++, for the CPU at hand."""

    name = "cpu"

    def __init__(self, lib: ctypes.CDLL | None = None) -> None:
        """With this machine's library, built if need be, or with `lib`. Raises `build.BuildError`."""
        self._lib = lib or library()

    def allocate_cache(self, shape: CacheShape, dtype: torch.dtype, device: torch.device) -> LayerCache:
        """On the CPU, whatever `device`."""
        return allocate_cache(shape, dtype)

    def quantize(self, weight: Tensor, weight_format: WeightFormat) -> QuantizedWeight:
        """A few seconds for a billion weights. Raises `KeyError` for a format with shifts."""
        return quantize_linear(weight, weight_format, self._lib)

    def pack(self, weight: Tensor | QuantizedWeight, bias: Tensor | None) -> PackedLinear:
        """A copy in panels; the original can be dropped."""
        return pack_linear(weight, bias)

    def parts_of(self, packed: PackedLinear) -> PackedParts:
        """Layouts are numbered as weight formats are."""
        shape = (packed.out_features, packed.in_features)
        return PackedParts(packed.format, shape, packed.panels, packed.scales, packed.bias)

    def assemble(self, parts: PackedParts) -> PackedLinear:
        """The same products as before."""
        return PackedLinear(WeightFormat(parts.layout), *parts[1:])

    def linear(self, x: Tensor, packed: PackedLinear) -> Tensor:
        """`x @ weight.T + bias`."""
        return packed(x)

    def unpack(self, packed: PackedLinear, rows: Tensor, dtype: torch.dtype) -> Tensor:
        """Rows of the weight, dequantized."""
        return packed.unpack(rows, dtype)

    def embed(self, token_ids: Tensor, weight: Tensor) -> Tensor:
        """Rows of the table."""
        out = weight.new_empty(len(token_ids), weight.shape[1])
        row_bytes = weight.shape[1] * weight.itemsize
        self._lib.sluice_embed(
            weight.data_ptr(), token_ids.data_ptr(), out.data_ptr(), len(token_ids), row_bytes
        )
        return out

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """Normalized in float32, rounded, then scaled."""
        x = x.contiguous()
        out, width = torch.empty_like(x), x.shape[-1]
        self._lib.sluice_rms_norm(
            x.data_ptr(), weight.data_ptr(), out.data_ptr(), x.numel() // width, width, eps, DTYPES[x.dtype]
        )
        return out

    def add_rms_norm(self, x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        """The sum is rounded to the activation dtype before it is normalized."""
        x, residual = x.contiguous(), residual.contiguous()
        out, total, width = torch.empty_like(x), torch.empty_like(x), x.shape[-1]
        self._lib.sluice_add_rms_norm(
            x.data_ptr(),
            residual.data_ptr(),
            weight.data_ptr(),
            total.data_ptr(),
            out.data_ptr(),
            x.numel() // width,
            width,
            eps,
            DTYPES[x.dtype],
        )
        return out, total

    def rope_and_cache(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        cos_sin: Tensor,
        positions: Tensor,
        slots: Tensor,
        cache: LayerCache,
        qk_norm: QKNorm | None = None,
    ) -> Tensor:
        """Reads query, key and value where the projection left them: rows of heads, equally far apart."""
        query, key, value = _same_rows(query, key, value)
        out = torch.empty(query.shape, dtype=query.dtype)
        self._lib.sluice_rope_and_cache(
            query.data_ptr(),
            key.data_ptr(),
            value.data_ptr(),
            query.stride(0),
            cos_sin.data_ptr(),
            positions.data_ptr(),
            slots.data_ptr(),
            qk_norm and qk_norm.q_weight.data_ptr(),
            qk_norm and qk_norm.k_weight.data_ptr(),
            qk_norm.eps if qk_norm else 0.0,
            out.data_ptr(),
            cache.keys.data_ptr(),
            cache.values.data_ptr(),
            len(query),
            query.shape[1],
            key.shape[1],
            query.shape[2],
            block_size_of(cache),
            DTYPES[query.dtype],
            CACHE_DTYPES[cache.keys.dtype],
        )
        return out

    def plan_attention(
        self,
        queries: Sequence[QueryRange],
        block_size: int,
        windows: frozenset[int | None],
        device: torch.device,
    ) -> AttentionPlan:
        """Cut the step into items of work, once per window."""
        tables, flat = array("i"), array("i")
        for query in queries:
            if query.length:
                flat.extend((query.start, query.length, query.context_length, len(tables)))
                tables.extend(query.block_ids)
        return AttentionPlan(tables, {window: WindowPlan(self._lib, flat, window) for window in windows})

    def attention(self, query: Tensor, cache: LayerCache, plan: AttentionPlan, window: int | None) -> Tensor:
        """Split over threads by request, kv head and stretches of the context."""
        query = query.contiguous()
        _, heads, head_dim = query.shape
        kv_heads = cache.keys.shape[1]
        items = plan.windows[window]
        partials, finished = items.workspace(heads, kv_heads, head_dim)
        out = torch.empty_like(query)
        self._lib.sluice_attention(
            query.data_ptr(),
            cache.keys.data_ptr(),
            cache.values.data_ptr(),
            out.data_ptr(),
            address_of(items.items),
            items.num_items,
            address_of(plan.tables),
            partials.data_ptr(),
            finished.data_ptr(),
            heads,
            kv_heads,
            head_dim,
            block_size_of(cache),
            window or 0,
            DTYPES[query.dtype],
            CACHE_DTYPES[cache.keys.dtype],
        )
        return out

    def silu_mul(self, gate_up: Tensor) -> Tensor:
        """The gate and the product are rounded one after the other."""
        gate_up = gate_up.contiguous()
        rows, width = len(gate_up), gate_up.shape[1] // 2
        out = gate_up.new_empty(rows, width)
        self._lib.sluice_silu_mul(gate_up.data_ptr(), out.data_ptr(), rows, width, DTYPES[gate_up.dtype])
        return out

    def fuse_layers(self, shape: LayerShape, layers: Sequence[LayerWeights]) -> LayerStack | None:
        """One call a step, see `decoder.cpp`."""
        return FusedLayers(self._lib, shape, layers)

    def copy_blocks(self, cache: LayerCache, sources: Sequence[int], targets: Sequence[int]) -> None:
        """A block is one stretch of memory in each tensor."""
        pairs = array("q", [block for pair in zip(sources, targets, strict=True) for block in pair])
        for tensor in cache:
            block_bytes = tensor.stride(0) * tensor.itemsize
            self._lib.sluice_copy_blocks(tensor.data_ptr(), address_of(pairs), len(sources), block_bytes)

    def sample(self, logits: Tensor, draws: Sequence[Draw]) -> Tensor:
        """Equal logits go to the lowest id. The rules are `sampling.draws`'."""
        packed = b"".join(
            _DRAW.pack(
                draw.temperature,
                min(draw.top_k, logits.shape[1]),
                draw.top_p,
                math.log(draw.min_p) if draw.min_p > 0 else -math.inf,
                draw.key % 2**64,
            )
            for draw in draws
        )
        tokens = torch.empty(len(draws), dtype=torch.int64)
        self._lib.sluice_sample(
            logits.data_ptr(),
            packed,
            tokens.data_ptr(),
            *logits.shape,
            logits.stride(0),
            DTYPES[logits.dtype],
        )
        return tokens

    def log_sum_exp(self, logits: Tensor) -> Tensor:
        """Summed in float64, one row on one thread."""
        out = torch.empty(len(logits))
        self._lib.sluice_log_sum_exp(
            logits.data_ptr(), out.data_ptr(), *logits.shape, logits.stride(0), DTYPES[logits.dtype]
        )
        return out


def _same_rows(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As they are if they are slices of one tensor [T, heads, D], else copies that are."""
    head_dim = query.shape[2]
    if all(x.stride() == (query.stride(0), head_dim, 1) for x in (query, key, value)):
        return query, key, value
    rows = torch.cat((query, key, value), dim=1)
    query, key, value = torch.split(rows, [query.shape[1], key.shape[1], value.shape[1]], dim=1)
    return query, key, value
