"""Each reference kernel against a twin that computes one token and one head at a time, in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sluice_worker.batch import QueryRange
from sluice_worker.kernels.interface import CacheShape, LayerCache, QKNorm
from sluice_worker.kernels.reference import (
    QUERY_TILE,
    ReferenceKernels,
    dequantize_heads,
    quantize_heads,
)

CPU = torch.device("cpu")
KERNELS = ReferenceKernels()


class Sequence:
    """One sequence with known keys and values, spread over random blocks of a cache."""

    def __init__(self, context: int, chunk: int, kv_heads: int, head_dim: int) -> None:
        self.context, self.chunk = context, chunk
        self.keys = torch.randn(context, kv_heads, head_dim)
        self.values = torch.randn(context, kv_heads, head_dim)
        self.block_ids: list[int] = []


def fill_cache(sequences: list[Sequence], block_size: int, dtype: torch.dtype) -> LayerCache:
    """A cache of garbage that holds the sequences in shuffled blocks."""
    counts = [-(-s.context // block_size) for s in sequences]
    _, kv_heads, head_dim = sequences[0].keys.shape
    shape = CacheShape(sum(counts) + 1, block_size, kv_heads, head_dim)
    cache = KERNELS.allocate_cache(shape, dtype, CPU)
    cache.keys.normal_(std=50)
    cache.values.normal_(std=50)
    free = torch.randperm(shape.num_blocks).tolist()
    for sequence, count in zip(sequences, counts, strict=True):
        sequence.block_ids = [free.pop() for _ in range(count)]
        for p in range(sequence.context):
            block, offset = sequence.block_ids[p // block_size], p % block_size
            cache.keys[:, block, offset] = sequence.keys[p].to(dtype)
            cache.values[:, block, offset] = sequence.values[p].to(dtype)
    return cache


def naive_attention(query: Tensor, keys: Tensor, values: Tensor, window: int | None) -> Tensor:
    """`query` [heads, D] at the last position of `keys` and `values` [context, kv heads, D]."""
    heads, head_dim = query.shape
    first = 0 if window is None else max(0, len(keys) - window)
    out = torch.empty(heads, head_dim, dtype=torch.float64)
    for head in range(heads):
        kv_head = head // (heads // keys.shape[1])
        k, v = keys[first:, kv_head].double(), values[first:, kv_head].double()
        weights = torch.softmax(k @ query[head].double() / math.sqrt(head_dim), dim=0)
        out[head] = weights @ v
    return out


def attend(
    sequences: list[Sequence], query: Tensor, block_size: int, window: int | None, dtype: torch.dtype
) -> Tensor:
    cache = fill_cache(sequences, block_size, dtype)
    ranges, start = [], 0
    for s in sequences:
        ranges.append(QueryRange(start, s.chunk, s.context, s.block_ids))
        start += s.chunk
    plan = KERNELS.plan_attention(ranges, block_size, frozenset({window}), CPU)
    return KERNELS.attention(query.to(dtype), cache, plan, window)


def expected(sequences: list[Sequence], query: Tensor, window: int | None) -> Tensor:
    rows, row = [], 0
    for s in sequences:
        for end in range(s.context - s.chunk + 1, s.context + 1):
            rows.append(naive_attention(query[row], s.keys[:end], s.values[:end], window))
            row += 1
    return torch.stack(rows)


# (context, tokens computed in this step): decodes, first and later chunks, block edges, more than a tile.
MIXED = [(1, 1), (40, 1), (7, 7), (33, 5), (16, 16), (17, 1), (200, 1), (QUERY_TILE + 30, QUERY_TILE + 1)]


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (8, 2), (9, 3), (6, 1)])
@pytest.mark.parametrize(("head_dim", "block_size"), [(16, 4), (64, 16), (80, 32)])
@pytest.mark.parametrize("window", [None, 1, 10])
def test_attention_of_a_mixed_batch(
    heads: int, kv_heads: int, head_dim: int, block_size: int, window: int | None
) -> None:
    torch.manual_seed(0)
    sequences = [Sequence(context, chunk, kv_heads, head_dim) for context, chunk in MIXED]
    query = torch.randn(sum(s.chunk for s in sequences), heads, head_dim)
    out = attend(sequences, query, block_size, window, torch.float32)
    torch.testing.assert_close(out.double(), expected(sequences, query, window), atol=1e-5, rtol=1e-5)


def test_attention_in_bfloat16_rounds_only_inputs_and_output() -> None:
    torch.manual_seed(0)
    sequences = [Sequence(context, chunk, 2, 64) for context, chunk in MIXED]
    for s in sequences:
        s.keys, s.values = s.keys.bfloat16().float(), s.values.bfloat16().float()
    query = torch.randn(sum(s.chunk for s in sequences), 4, 64).bfloat16().float()
    out = attend(sequences, query, 16, None, torch.bfloat16)
    torch.testing.assert_close(out.double(), expected(sequences, query, None), atol=1e-3, rtol=2**-8)


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    torch.manual_seed(0)
    sequences = [Sequence(context, chunk, 2, 64) for context, chunk in MIXED]
    query = torch.randn(sum(s.chunk for s in sequences), 4, 64)
    together = attend(sequences, query, 16, None, torch.float32)
    row = 0
    for s in sequences:
        alone = attend([s], query[row : row + s.chunk], 16, None, torch.float32)
        torch.testing.assert_close(alone, together[row : row + s.chunk], atol=1e-6, rtol=1e-6)
        row += s.chunk


def naive_rope(x: Tensor, position: int, head_dim: int, theta: float = 10000.0) -> Tensor:
    out = x.double().clone()
    for i in range(head_dim // 2):
        angle = position / theta ** (2 * i / head_dim)
        a, b = x[i].double(), x[i + head_dim // 2].double()
        out[i] = a * math.cos(angle) - b * math.sin(angle)
        out[i + head_dim // 2] = b * math.cos(angle) + a * math.sin(angle)
    return out


def naive_rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    wide = x.double()
    return wide / math.sqrt(sum(v * v for v in wide.tolist()) / len(wide) + eps) * weight.double()


@pytest.mark.parametrize("with_norm", [False, True])
def test_rope_and_cache_rotates_queries_and_writes_each_token_to_its_slot(with_norm: bool) -> None:
    torch.manual_seed(0)
    tokens, heads, kv_heads, dim, block_size = 5, 4, 2, 16, 4
    query, key = torch.randn(tokens, heads, dim), torch.randn(tokens, kv_heads, dim)
    value = torch.randn(tokens, kv_heads, dim)
    norm = QKNorm(torch.randn(dim), torch.randn(dim), 1e-6) if with_norm else None
    positions, slots = torch.tensor([0, 1, 2, 40, 9]), torch.tensor([7, 0, 19, 4, 12])
    angles = torch.outer(torch.arange(64.0), 1 / 10000 ** (torch.arange(0, dim, 2) / dim))
    cache = KERNELS.allocate_cache(CacheShape(5, block_size, kv_heads, dim), torch.float32, CPU)
    cos_sin = torch.cat((angles.cos(), angles.sin()), -1)
    rotated = KERNELS.rope_and_cache(query, key, value, cos_sin, positions, slots, cache, norm)

    def twin(x: Tensor, weight: Tensor | None, position: int) -> Tensor:
        return naive_rope(x if weight is None else naive_rms_norm(x, weight, 1e-6), position, dim)

    for t in range(tokens):
        position, (block, offset) = int(positions[t]), divmod(int(slots[t]), block_size)
        for h in range(heads):
            want = twin(query[t, h], norm and norm.q_weight, position)
            torch.testing.assert_close(rotated[t, h].double(), want, atol=1e-5, rtol=1e-5)
        for h in range(kv_heads):
            want = twin(key[t, h], norm and norm.k_weight, position)
            torch.testing.assert_close(cache.keys[h, block, offset].double(), want, atol=1e-5, rtol=1e-5)
            assert torch.equal(cache.values[h, block, offset], value[t, h])
    written = int((cache.values != 0).any(-1)[0].sum())
    assert written == tokens


def test_codes_are_within_half_a_step_and_keep_the_largest() -> None:
    torch.manual_seed(0)
    heads = torch.randn(7, 3, 10) * 5
    heads[2, 1] = 0
    codes = quantize_heads(heads)
    assert codes.shape == (7, 3, 14)
    assert codes.dtype == torch.int8
    step = heads.abs().amax(-1, keepdim=True) / 127
    error = (dequantize_heads(codes) - heads).abs()
    assert (error <= 0.5001 * step).all()
    assert codes[..., :10].abs().amax(-1).flatten().tolist() == [0 if i == 7 else 127 for i in range(21)]


def test_attention_over_codes_is_attention_over_what_they_stand_for() -> None:
    torch.manual_seed(0)
    tokens, heads, kv_heads, dim = 20, 4, 2, 18
    query, key, value = (torch.randn(tokens, n, dim) for n in (heads, kv_heads, kv_heads))
    cos_sin = torch.cat((torch.ones(1, dim // 2), torch.zeros(1, dim // 2)), -1)  # no rotation
    out = []
    for dtype in (torch.int8, torch.float32):
        cache = KERNELS.allocate_cache(CacheShape(5, 4, kv_heads, dim), dtype, CPU)
        positions, slots = torch.zeros(tokens, dtype=torch.int64), torch.arange(tokens)
        KERNELS.rope_and_cache(query, key, value, cos_sin, positions, slots, cache)
        plan = KERNELS.plan_attention([QueryRange(0, tokens, tokens, range(5))], 4, frozenset({None}), CPU)
        out.append(KERNELS.attention(query, cache, plan, None))
        key, value = (dequantize_heads(quantize_heads(x)) for x in (key, value))
    torch.testing.assert_close(out[0], out[1], atol=1e-5, rtol=1e-5)


def test_norms() -> None:
    torch.manual_seed(0)
    x, residual, weight = torch.randn(3, 8), torch.randn(3, 8), torch.randn(8)
    normed, total = KERNELS.add_rms_norm(x, residual, weight, 1e-5)
    assert torch.equal(total, x + residual)
    want = torch.stack([naive_rms_norm(row, weight, 1e-5) for row in total])
    torch.testing.assert_close(normed.double(), want, atol=1e-6, rtol=1e-5)
    assert torch.equal(KERNELS.rms_norm(total, weight, 1e-5), normed)


def test_linear_embed_and_silu_mul() -> None:
    torch.manual_seed(0)
    x, weight, bias = torch.randn(3, 8), torch.randn(6, 8), torch.randn(6)
    packed = KERNELS.pack(weight, bias)
    torch.testing.assert_close(KERNELS.linear(x, packed), x @ weight.T + bias)
    torch.testing.assert_close(KERNELS.linear(x, KERNELS.pack(weight, None)), x @ weight.T)
    assert torch.equal(KERNELS.embed(torch.tensor([4, 0]), weight), weight[[4, 0]])
    gate, up = x[:, :4], x[:, 4:]
    torch.testing.assert_close(KERNELS.silu_mul(x), gate / (1 + torch.exp(-gate)) * up)


def test_copy_blocks_copies_keys_and_values() -> None:
    cache = KERNELS.allocate_cache(CacheShape(4, 2, 3, 8), torch.float32, CPU)
    cache.keys.normal_()
    cache.values.normal_()
    before = LayerCache(cache.keys.clone(), cache.values.clone())
    KERNELS.copy_blocks(cache, sources=[0, 1], targets=[3, 2])
    for now, then in zip(cache, before, strict=True):
        assert torch.equal(now[:, [3, 2]], then[:, [0, 1]])
        assert torch.equal(now[:, :2], then[:, :2])
