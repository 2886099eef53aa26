"""Norms, rotation and cache write, gate and copies in C++: equal to the reference, row by row."""

from __future__ import annotations

import pytest
import torch
from cpu_variants import ISAS, forced_kernels, layout_of, set_threads, write_slots
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sluice_worker.kernels.interface import CacheShape, LayerCache, QKNorm
from sluice_worker.kernels.reference import ReferenceKernels

CPU = torch.device("cpu")
REFERENCE = ReferenceKernels()
TOLERANCE = {torch.float32: (1e-5, 1e-5), torch.bfloat16: (1.5e-2, 1e-2)}
"""Absolute and relative."""
every_isa = pytest.mark.parametrize("isa", ISAS)
some = settings(max_examples=60, deadline=None)

seeds = st.integers(0, 10_000)
dtypes = st.sampled_from([torch.float32, torch.bfloat16])
row_counts = st.sampled_from([0, 1, 2, 7, 40, 300])
widths = st.sampled_from([1, 15, 16, 17, 64, 100, 576, 2048])
scales = st.sampled_from([1e-3, 1.0, 30.0])


def close(ours: Tensor, expected: Tensor) -> None:
    atol, rtol = TOLERANCE[expected.dtype]
    torch.testing.assert_close(ours, expected, atol=atol, rtol=rtol)


def close_keys(ours: LayerCache, expected: LayerCache, dtype: torch.dtype) -> None:
    """Codes may differ by one where a norm was rounded the other way."""
    found, wanted = layout_of(ours, dtype), layout_of(expected, dtype)
    if found.scales is None or wanted.scales is None:
        close(ours.keys, expected.keys)
    else:
        assert (found.keys.int() - wanted.keys.int()).abs().max() <= 1
        torch.testing.assert_close(found.scales[0], wanted.scales[0], atol=0, rtol=1e-2)


@every_isa
@some
@given(seed=seeds, dtype=dtypes, rows=row_counts, width=widths, scale=scales)
def test_norms_agree_with_the_reference(
    isa: str, seed: int, dtype: torch.dtype, rows: int, width: int, scale: float
) -> None:
    torch.manual_seed(seed)
    kernels = forced_kernels(isa)
    set_threads(kernels, 2)
    x, residual = (torch.randn(2, rows, width) * scale).to(dtype)
    weight = torch.randn(width).to(dtype)
    normed, total = kernels.add_rms_norm(x, residual, weight, 1e-5)
    expected, expected_total = REFERENCE.add_rms_norm(x, residual, weight, 1e-5)
    assert torch.equal(total, expected_total)
    close(normed, expected)
    assert torch.equal(kernels.rms_norm(total, weight, 1e-5), normed)


@every_isa
@some
@given(seed=seeds, dtype=dtypes, rows=row_counts, width=widths, scale=scales)
def test_gate_agrees_with_the_reference(
    isa: str, seed: int, dtype: torch.dtype, rows: int, width: int, scale: float
) -> None:
    torch.manual_seed(seed)
    kernels = forced_kernels(isa)
    set_threads(kernels, 2)
    gate_up = (torch.randn(rows, 2 * width) * scale).to(dtype)
    close(kernels.silu_mul(gate_up), REFERENCE.silu_mul(gate_up))


@every_isa
def test_bfloat16_is_rounded_where_the_reference_rounds(isa: str) -> None:
    """The very same numbers, but for one in a hundred, where float32 sums differ in their last bits.

    A rounding more or less would change one in four.
    """
    torch.manual_seed(0)
    kernels = forced_kernels(isa)
    gate_up, x = torch.randn(50, 2 * 600).bfloat16(), torch.randn(50, 600).bfloat16()
    weight = torch.randn(600).bfloat16()
    pairs = [
        (kernels.silu_mul(gate_up), REFERENCE.silu_mul(gate_up)),
        (kernels.rms_norm(x, weight, 1e-5), REFERENCE.rms_norm(x, weight, 1e-5)),
    ]
    for ours, expected in pairs:
        assert (ours == expected).float().mean() > 0.99


@every_isa
def test_gate_of_extreme_numbers(isa: str) -> None:
    gate = torch.tensor([0.0, -0.0, 1e-30, 50.0, 87.0, 89.0, 1e30, torch.inf, -50.0, -87.0, -89.0, -1e30])
    gate_up = torch.cat((gate, torch.ones(12))).unsqueeze(0)
    close(forced_kernels(isa).silu_mul(gate_up)[0], torch.nn.functional.silu(gate))


@every_isa
@some
@given(
    seed=seeds,
    dtype=dtypes,
    tokens=st.sampled_from([0, 1, 3, 30]),
    kv_heads=st.sampled_from([1, 2, 3]),
    per_kv=st.sampled_from([1, 3, 8]),
    head_dim=st.sampled_from([64, 80, 96, 128, 256, 16, 20]),
    block_size=st.sampled_from([6, 8, 16, 24, 32, 128]),
    sliced=st.booleans(),
    normed=st.booleans(),
    codes=st.booleans(),
)
def test_rotation_and_cache_write(
    isa: str,
    seed: int,
    dtype: torch.dtype,
    tokens: int,
    kv_heads: int,
    per_kv: int,
    head_dim: int,
    block_size: int,
    sliced: bool,
    normed: bool,
    codes: bool,
) -> None:
    """Without norms the rotated query and the whole cache are exactly the reference's."""
    torch.manual_seed(seed)
    kernels = forced_kernels(isa)
    set_threads(kernels, 2)
    heads = kv_heads * per_kv
    qkv = torch.randn(tokens, heads + 2 * kv_heads, head_dim).to(dtype)
    query, key, value = torch.split(qkv, [heads, kv_heads, kv_heads], dim=1)
    if not sliced:
        query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
    weights = torch.randn(2, head_dim).to(dtype)
    norm = QKNorm(weights[0], weights[1], 1e-6) if normed else None
    positions, cos_sin = torch.randint(0, 50, (tokens,)), torch.randn(50, head_dim)
    shape = CacheShape(-(-tokens // block_size) + 2, block_size, kv_heads, head_dim)
    slots = torch.randperm(shape.num_blocks * block_size)[:tokens]
    cache, plain, expected_cache = (
        k.allocate_cache(shape, torch.int8 if codes else dtype, CPU) for k in (kernels, REFERENCE, kernels)
    )

    rotated = kernels.rope_and_cache(query, key, value, cos_sin, positions, slots, cache, norm)

    expected = REFERENCE.rope_and_cache(query, key, value, cos_sin, positions, slots, plain, norm)
    written = (
        stored[:, slots // block_size, slots % block_size].transpose(0, 1)
        for stored in (plain.keys, plain.values)
    )
    write_slots(expected_cache, slots, *written, dtype)
    assert torch.equal(cache.values, expected_cache.values)
    if norm is None:
        assert torch.equal(rotated, expected)
        assert torch.equal(cache.keys, expected_cache.keys)
    else:
        close(rotated, expected)
        close_keys(cache, expected_cache, dtype)


@every_isa
@some
@given(seed=seeds, dtype=dtypes, rows=st.integers(1, 80), width=widths)
def test_a_row_does_not_depend_on_the_others(
    isa: str, seed: int, dtype: torch.dtype, rows: int, width: int
) -> None:
    torch.manual_seed(seed)
    kernels = forced_kernels(isa)
    x, weight = torch.randn(rows, width).to(dtype), torch.randn(width).to(dtype)
    gate_up = torch.randn(rows, 2 * width).to(dtype)
    set_threads(kernels, 2)
    normed, gated = kernels.rms_norm(x, weight, 1e-5), kernels.silu_mul(gate_up)
    set_threads(kernels, 1)
    for row in range(rows):
        assert torch.equal(kernels.rms_norm(x[row : row + 1], weight, 1e-5)[0], normed[row])
        assert torch.equal(kernels.silu_mul(gate_up[row : row + 1])[0], gated[row])


@every_isa
@some
@given(seed=seeds, dtype=dtypes, rows=row_counts, width=widths)
def test_embedding_copies_rows(isa: str, seed: int, dtype: torch.dtype, rows: int, width: int) -> None:
    torch.manual_seed(seed)
    kernels = forced_kernels(isa)
    set_threads(kernels, 2)
    table, ids = torch.randn(50, width).to(dtype), torch.randint(0, 50, (rows,))
    assert torch.equal(kernels.embed(ids, table), table[ids])


@every_isa
@some
@given(
    seed=seeds,
    dtype=dtypes,
    block_size=st.sampled_from([6, 16, 32]),
    head_dim=st.sampled_from([20, 64, 128]),
    count=st.integers(0, 20),
)
def test_copied_blocks_are_equal_and_the_others_untouched(
    isa: str, seed: int, dtype: torch.dtype, block_size: int, head_dim: int, count: int
) -> None:
    torch.manual_seed(seed)
    kernels = forced_kernels(isa)
    set_threads(kernels, 2)
    cache = kernels.allocate_cache(CacheShape(50, block_size, 3, head_dim), dtype, CPU)
    expected = []
    order = torch.randperm(50).tolist()
    sources, targets = order[:count], order[count : 2 * count]
    for tensor in cache:
        tensor.normal_()
        copy = tensor.clone()
        copy[targets] = copy[sources]
        expected.append(copy)
    kernels.copy_blocks(cache, sources, targets)
    assert torch.equal(cache.keys, expected[0])
    assert torch.equal(cache.values, expected[1])


def test_a_new_cache_is_zero() -> None:
    cache = forced_kernels("plain").allocate_cache(CacheShape(3, 16, 2, 80), torch.bfloat16, CPU)
    assert not cache.keys.any() and not cache.values.any()
    assert cache.keys.data_ptr() % 64 == 0
