"""All layers of a decoder in one call of the library: pointers are set once, a step changes few of them."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sluice_worker.kernels.cpu.cache import block_size_of
from sluice_worker.kernels.cpu.library import CACHE_DTYPES, DTYPES, FLOAT, INT, POINTER
from sluice_worker.kernels.cpu.memory import address_of
from sluice_worker.kernels.cpu.packed import PackedLinear
from sluice_worker.kernels.interface import LayerCache, LayerShape, LayerWeights, StepContext

if TYPE_CHECKING:
    from sluice_worker.kernels.cpu.kernels import AttentionPlan

ALIGNMENT = 64
"""Bytes: a cache line, and the longest vector."""


class _Plan(ctypes.Structure):
    """`AttentionPlan` in `ops.h`."""

    _fields_ = (
        ("items", POINTER),
        ("partials", POINTER),
        ("finished", POINTER),
        ("num_items", INT),
        ("window", INT),
    )


class _Layer(ctypes.Structure):
    """`DecoderLayer` in `ops.h`."""

    _fields_ = (
        ("qkv", POINTER),
        ("out", POINTER),
        ("gate_up", POINTER),
        ("down", POINTER),
        ("input_norm", POINTER),
        ("post_norm", POINTER),
        ("q_norm", POINTER),
        ("k_norm", POINTER),
        ("keys", POINTER),
        ("values", POINTER),
        ("plan", INT),
    )


class _Step(ctypes.Structure):
    """`DecoderStep` in `ops.h`."""

    _fields_ = (
        ("layers", POINTER),
        ("plans", POINTER),
        ("tables", POINTER),
        ("cos_sin", POINTER),
        ("positions", POINTER),
        ("slots", POINTER),
        ("x", POINTER),
        ("residual", POINTER),
        ("normed", POINTER),
        ("qkv", POINTER),
        ("query", POINTER),
        ("attended", POINTER),
        ("gate_up", POINTER),
        ("gated", POINTER),
        ("num_layers", INT),
        ("rows", INT),
        ("hidden", INT),
        ("heads", INT),
        ("kv_heads", INT),
        ("head_dim", INT),
        ("inner", INT),
        ("block_size", INT),
        ("dtype", INT),
        ("cache_dtype", INT),
        ("norm_eps", FLOAT),
        ("qk_norm_eps", FLOAT),
    )


class FusedLayers:
    """The layers of one decoder, and the memory for what passes between their operations."""

    def __init__(self, lib: ctypes.CDLL, shape: LayerShape, layers: Sequence[LayerWeights]) -> None:
        self._lib, self._shape = lib, shape
        self._weights = list(layers)  # keeps alive what the pointers point to
        self._windows = list(dict.fromkeys(layer.window for layer in layers))
        self._layers = (_Layer * len(layers))(*map(self._layer, layers))
        self._plans = (_Plan * len(self._windows))()
        self._caches: Sequence[LayerCache] | None = None
        self._memory = torch.empty(0)
        qk_norm = layers[0].qk_norm
        self._step = _Step(
            layers=ctypes.addressof(self._layers),
            plans=ctypes.addressof(self._plans),
            num_layers=len(layers),
            hidden=shape.hidden,
            heads=shape.num_heads,
            kv_heads=shape.num_kv_heads,
            head_dim=shape.head_dim,
            inner=shape.inner,
            norm_eps=shape.norm_eps,
            qk_norm_eps=qk_norm.eps if qk_norm else 0.0,
        )

    def __call__(self, x: Tensor, caches: Sequence[LayerCache], step: StepContext) -> tuple[Tensor, Tensor]:
        """See `kernels.interface.LayerStack`. `x` becomes the residual stream."""
        self._use_caches(caches)
        added = self._use_memory(len(x), x.dtype)
        self._use_plan(step.plan)
        call = self._step
        call.rows, call.dtype = len(x), DTYPES[x.dtype]
        call.residual = x.data_ptr()
        call.cos_sin = step.cos_sin.data_ptr()
        call.positions = step.positions.data_ptr()
        call.slots = step.slots.data_ptr()
        self._lib.sluice_decode(ctypes.addressof(call))
        return added, x

    def _layer(self, layer: LayerWeights) -> _Layer:
        packed: list[PackedLinear] = [layer.qkv, layer.out, layer.gate_up, layer.down]
        norms = [layer.input_norm, layer.post_norm]
        if layer.qk_norm is not None:
            norms += [layer.qk_norm.q_weight, layer.qk_norm.k_weight]
        pointers = [*(part.address for part in packed), *(norm.data_ptr() for norm in norms)]
        return _Layer(*pointers, plan=self._windows.index(layer.window))

    def _use_caches(self, caches: Sequence[LayerCache]) -> None:
        if caches is self._caches:
            return
        for layer, cache in zip(self._layers, caches, strict=True):
            layer.keys, layer.values = cache.keys.data_ptr(), cache.values.data_ptr()
        self._step.block_size = block_size_of(caches[0])
        self._step.cache_dtype = CACHE_DTYPES[caches[0].keys.dtype]
        self._caches = caches

    def _use_memory(self, rows: int, dtype: torch.dtype) -> Tensor:
        """Point the step to memory for `rows` rows; returns what `x` points to, [rows, hidden]."""
        offsets, end = self._offsets(ALIGNMENT // dtype.itemsize, rows)
        if self._memory.dtype != dtype or len(self._memory) < end + ALIGNMENT // dtype.itemsize:
            self._memory = torch.empty(end + ALIGNMENT // dtype.itemsize, dtype=dtype)
        first = -self._memory.data_ptr() % ALIGNMENT // dtype.itemsize
        for name, offset in offsets.items():
            setattr(self._step, name, self._memory.data_ptr() + (first + offset) * dtype.itemsize)
        return self._memory[first : first + rows * self._shape.hidden].view(rows, self._shape.hidden)

    def _offsets(self, pitch: int, rows: int) -> tuple[dict[str, int], int]:
        """Where each of the step's arrays starts, at multiples of `pitch` numbers, and where all end.

        Attention is over when the feed-forward begins, and takes the same place.
        """
        shape = self._shape
        query = shape.num_heads * shape.head_dim
        common = {"x": shape.hidden, "normed": shape.hidden}
        attention = {
            "qkv": query + 2 * shape.num_kv_heads * shape.head_dim,
            "query": query,
            "attended": query,
        }
        feed_forward = {"gate_up": 2 * shape.inner, "gated": shape.inner}
        offsets, end = {}, 0
        for part in (attention, feed_forward):
            at = 0
            for name, width in (common | part).items():
                offsets[name] = at
                at += -(-rows * width // pitch) * pitch
            end = max(end, at)
        return offsets, end

    def _use_plan(self, plan: AttentionPlan) -> None:
        shape = self._shape
        self._step.tables = address_of(plan.tables)
        for index, window in enumerate(self._windows):
            items = plan.windows[window]
            partials, finished = items.workspace(shape.num_heads, shape.num_kv_heads, shape.head_dim)
            self._plans[index] = _Plan(
                address_of(items.items),
                partials.data_ptr(),
                finished.data_ptr(),
                items.num_items,
                window or 0,
            )
