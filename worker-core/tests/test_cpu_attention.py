"""Paged attention in C++: equal to the reference, and the same bits however the work is cut."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

import pytest
import torch
from cpu_variants import ISAS, forced_kernels, layout_of, set_threads, write_slots
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from sluice_worker.batch import QueryRange
from sluice_worker.errors import ConfigError, UnsupportedModelError
from sluice_worker.kernels.cpu.kernels import SPLIT, CpuKernels
from sluice_worker.kernels.interface import CacheShape, LayerCache
from sluice_worker.kernels.reference import ReferenceKernels, quantize_heads

CPU = torch.device("cpu")
REFERENCE = ReferenceKernels()
TOLERANCE = {torch.float32: (1e-5, 1e-5), torch.bfloat16: (1.5e-2, 1e-2)}
"""Absolute and relative."""
every_isa = pytest.mark.parametrize("isa", ISAS)


class Shape(NamedTuple):
    """What all requests of a batch share."""

    kv_heads: int
    per_kv: int
    head_dim: int
    block_size: int
    dtype: torch.dtype
    window: int | None
    codes: bool = False
    """The cache is int8."""


class Request:
    """One sequence with its queries, its keys and values, and shuffled blocks for them."""

    def __init__(self, shape: Shape, context: int, chunk: int) -> None:
        self.shape, self.context, self.chunk = shape, context, chunk
        heads = shape.kv_heads * shape.per_kv
        self.query = torch.randn(context, heads, shape.head_dim).to(shape.dtype)
        self.key = torch.randn(context, shape.kv_heads, shape.head_dim).to(shape.dtype)
        self.value = torch.randn(context, shape.kv_heads, shape.head_dim).to(shape.dtype)
        self.stored_key, self.stored_value = (
            quantize_heads(x) if shape.codes else x for x in (self.key, self.value)
        )
        self.blocks: list[int] = []

    def rows(self, first: int, end: int) -> Request:
        """The same sequence in a step that computes the tokens [first, end)."""
        part = copy.copy(self)
        part.context, part.chunk = end, end - first
        return part


class Caches(NamedTuple):
    ours: LayerCache
    reference: LayerCache


def fill_caches(kernels: CpuKernels, requests: Sequence[Request]) -> Caches:
    """Both layouts with the same tokens; not-a-number (or scales that are none) wherever nobody wrote."""
    shape = requests[0].shape
    counts = [-(-r.context // shape.block_size) for r in requests]
    size = CacheShape(sum(counts) + 1, shape.block_size, shape.kv_heads, shape.head_dim)
    stored = torch.int8 if shape.codes else shape.dtype
    ours, reference = kernels.allocate_cache(size, stored, CPU), REFERENCE.allocate_cache(size, stored, CPU)
    view = layout_of(ours, shape.dtype)
    garbage = 99 if shape.codes else torch.nan
    view.keys[:, :, :, : shape.head_dim // view.keys.shape[5]].fill_(garbage)
    view.values[:, :, :, : shape.head_dim].fill_(garbage)
    for scales in view.scales or ():
        scales.fill_(torch.nan)
    free = torch.randperm(size.num_blocks).tolist()
    for request, count in zip(requests, counts, strict=True):
        request.blocks = [free.pop() for _ in range(count)]
        places = torch.arange(request.context)
        blocks, offsets = torch.tensor(request.blocks)[places // shape.block_size], places % shape.block_size
        slots = blocks * shape.block_size + offsets
        write_slots(ours, slots, request.stored_key, request.stored_value, shape.dtype)
        reference.keys[:, blocks, offsets] = request.stored_key.transpose(0, 1)
        reference.values[:, blocks, offsets] = request.stored_value.transpose(0, 1)
    return Caches(ours, reference)


def ranges(requests: Sequence[Request]) -> list[QueryRange]:
    """One per request, covering the rows of `queries` in order."""
    found, start = [], 0
    for r in requests:
        found.append(QueryRange(start, r.chunk, r.context, r.blocks))
        start += r.chunk
    return found


def queries(requests: Sequence[Request]) -> Tensor:
    return torch.cat([r.query[r.context - r.chunk : r.context] for r in requests])


def attend(kernels: CpuKernels, requests: Sequence[Request], cache: LayerCache) -> Tensor:
    shape = requests[0].shape
    plan = kernels.plan_attention(ranges(requests), shape.block_size, frozenset({shape.window}), CPU)
    return kernels.attention(queries(requests), cache, plan, shape.window)


def attend_reference(requests: Sequence[Request], cache: LayerCache) -> Tensor:
    shape = requests[0].shape
    plan = REFERENCE.plan_attention(ranges(requests), shape.block_size, frozenset({shape.window}), CPU)
    return REFERENCE.attention(queries(requests), cache, plan, shape.window)


# Contexts around the ends of tiles, query tiles and splits, and in between.
contexts = st.sampled_from([1, 2, 15, 16, 17, 63, 64, 65, SPLIT - 1, SPLIT, SPLIT + 1]) | st.integers(1, 1300)
shapes = st.builds(
    Shape,
    kv_heads=st.sampled_from([1, 2, 3]),
    per_kv=st.sampled_from([1, 2, 3, 4, 7, 8]),
    head_dim=st.sampled_from([64, 80, 96, 128, 256, 16, 20]),
    block_size=st.sampled_from([8, 16, 24, 32, 40, 64, 128, 6]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    window=st.sampled_from([None, None, 1, 7, 64, 600]),
    codes=st.booleans(),
)


@st.composite
def batches(draw: st.DrawFn, most: int = 4) -> list[Request]:
    torch.manual_seed(draw(st.integers(0, 10_000)))
    shape = draw(shapes)
    requests = []
    for _ in range(draw(st.integers(1, most))):
        context = draw(contexts)
        chunk = draw(st.sampled_from([0, 1, 1, 2, 5, 16, 17, 40, context]))
        requests.append(Request(shape, context, min(chunk, context)))
    return requests


few = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@every_isa
@few
@given(requests=batches())
def test_agrees_with_the_reference(isa: str, requests: list[Request]) -> None:
    kernels = forced_kernels(isa)
    set_threads(kernels, 2)
    caches = fill_caches(kernels, requests)
    out = attend(kernels, requests, caches.ours)
    expected = attend_reference(requests, caches.reference)
    atol, rtol = TOLERANCE[expected.dtype]
    torch.testing.assert_close(out, expected, atol=atol, rtol=rtol)


@every_isa
@few
@given(requests=batches())
def test_a_request_gets_the_same_bits_alone(isa: str, requests: list[Request]) -> None:
    kernels = forced_kernels(isa)
    set_threads(kernels, 2)
    cache = fill_caches(kernels, requests).ours
    together = torch.split(attend(kernels, requests, cache), [r.chunk for r in requests])
    for request, expected in zip(requests, together, strict=True):
        assert torch.equal(attend(kernels, [request], cache), expected)


@every_isa
@few
@given(requests=batches(most=1), step=st.sampled_from([1, 3, 16, 50, 300]))
def test_chunks_of_any_length_give_the_same_bits(isa: str, requests: list[Request], step: int) -> None:
    kernels = forced_kernels(isa)
    (request,) = requests
    cache = fill_caches(kernels, requests).ours
    end, first = request.context, max(0, request.context - 20 * step)
    whole = attend(kernels, [request.rows(first, end)], cache)
    for start in range(first, end, step):
        stop = min(end, start + step)
        part = attend(kernels, [request.rows(start, stop)], cache)
        assert torch.equal(part, whole[start - first : stop - first])


@every_isa
@few
@given(requests=batches())
def test_one_and_two_threads_give_the_same_bits(isa: str, requests: list[Request]) -> None:
    kernels = forced_kernels(isa)
    cache = fill_caches(kernels, requests).ours
    set_threads(kernels, 1)
    expected = attend(kernels, requests, cache)
    set_threads(kernels, 2)
    for _ in range(5):
        assert torch.equal(attend(kernels, requests, cache), expected)


@every_isa
@pytest.mark.parametrize("window", [None, 600, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_long_chunk_gives_the_bits_of_its_decodes(isa: str, window: int | None, dtype: torch.dtype) -> None:
    """Long chunks do all splits in one item, decodes do them apart."""
    torch.manual_seed(0)
    kernels = forced_kernels(isa)
    request = Request(Shape(2, 4, 64, 16, dtype, window), 1300, 40)
    cache = fill_caches(kernels, [request]).ours
    whole = attend(kernels, [request], cache)
    for row, end in enumerate(range(1261, 1301)):
        assert torch.equal(attend(kernels, [request.rows(end - 1, end)], cache)[0], whole[row])


@every_isa
def test_a_plan_serves_layer_after_layer(isa: str) -> None:
    """The counters of finished splits are back at zero after each call."""
    torch.manual_seed(0)
    kernels = forced_kernels(isa)
    set_threads(kernels, 2)
    shape = Shape(2, 4, 64, 16, torch.bfloat16, None)
    requests = [Request(shape, 3 * SPLIT + 5, 1), Request(shape, 40, 1), Request(shape, SPLIT + 9, 12)]
    cache = fill_caches(kernels, requests).ours
    layers = [cache, LayerCache(-cache.keys, cache.values), LayerCache(cache.keys, -cache.values)]
    plan = kernels.plan_attention(ranges(requests), 16, frozenset({None, 100}), CPU)
    for window in (None, 100):
        out = [kernels.attention(queries(requests), layer, plan, window) for layer in layers]
        _, finished = plan.windows[window].workspace(8, 2, 64)
        assert len(finished) > 0
        assert not finished.any()
        for layer, expected in zip(layers, out, strict=True):
            fresh = kernels.plan_attention(ranges(requests), 16, frozenset({window}), CPU)
            assert torch.equal(kernels.attention(queries(requests), layer, fresh, window), expected)


@every_isa
def test_no_queries_at_all(isa: str) -> None:
    kernels = forced_kernels(isa)
    cache = kernels.allocate_cache(CacheShape(2, 16, 2, 64), torch.float32, CPU)
    plan = kernels.plan_attention([QueryRange(0, 0, 5, [1])], 16, frozenset({None}), CPU)
    assert kernels.attention(torch.empty(0, 4, 64), cache, plan, None).shape == (0, 4, 64)


def test_bfloat16_weights_cost_less_than_the_rounding_of_the_output() -> None:
    """Against float64: the error beyond a correctly rounded result is a small part of its rounding."""
    torch.manual_seed(0)
    kernels = forced_kernels("plain")
    requests = [Request(Shape(2, 4, 64, 16, torch.bfloat16, None), 900, 1) for _ in range(8)]
    cache = fill_caches(kernels, requests).ours
    exact = torch.cat([_exact_decode(r) for r in requests])
    error = (attend(kernels, requests, cache).double() - exact).square().mean().sqrt()
    rounding = (exact.bfloat16().double() - exact).square().mean().sqrt()
    assert error < 1.5 * rounding


def _exact_decode(request: Request) -> Tensor:
    key, value = (x.double().repeat_interleave(request.shape.per_kv, 1) for x in (request.key, request.value))
    scores = torch.einsum("hd,thd->ht", request.query[-1].double(), key) * request.shape.head_dim**-0.5
    return torch.einsum("ht,thd->hd", scores.softmax(-1), value).unsqueeze(0)


@every_isa
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_cache_of_codes_costs_two_percent(isa: str, dtype: torch.dtype) -> None:
    """The error of int8 keys and values against float64, relative to the output, over several contexts."""
    torch.manual_seed(0)
    kernels = forced_kernels(isa)
    shape = Shape(2, 4, 64, 16, dtype, None, codes=True)
    requests = [Request(shape, context, 1) for context in (20, 300, 900, 1500)]
    cache = fill_caches(kernels, requests).ours
    exact = torch.cat([_exact_decode(r) for r in requests])
    error = (attend(kernels, requests, cache).double() - exact).square().mean().sqrt()
    assert error < 0.02 * exact.square().mean().sqrt()


def test_impossible_shapes_are_refused() -> None:
    kernels = forced_kernels("plain")
    with pytest.raises(UnsupportedModelError, match="head_dim"):
        kernels.allocate_cache(CacheShape(2, 16, 2, 33), torch.float32, CPU)
    with pytest.raises(ConfigError, match="block_size"):
        kernels.allocate_cache(CacheShape(2, 7, 2, 64), torch.float32, CPU)
