"""Weights quantized in C++ are those of `quant.weights`, bit for bit."""

from __future__ import annotations

import pytest
import torch
from cpu_variants import ISAS, forced_kernels, set_threads
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sluice_worker.quant.weights import WeightFormat, quantize_weight

FORMATS = [WeightFormat.INT8, WeightFormat.INT8_GROUP, WeightFormat.INT4_GROUP]


def assert_same_codes(isa: str, weight: Tensor, weight_format: WeightFormat) -> None:
    kernels = forced_kernels(isa)
    set_threads(kernels, 2)
    expected = quantize_weight(weight, weight_format)
    found = kernels.quantize(weight, weight_format)
    assert found.format is expected.format and found.dtype is expected.dtype
    assert torch.equal(found.scales.view(torch.int16), expected.scales.view(torch.int16))
    assert torch.equal(found.codes, expected.codes)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("weight_format", FORMATS, ids=lambda f: f.name.lower())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@settings(deadline=None, max_examples=8)
@given(
    rows=st.integers(1, 70),
    inputs=st.integers(1, 200),
    exponent=st.integers(-8, 4),
    seed=st.integers(0, 2**20),
)
def test_codes_and_scales_are_the_twins(
    isa: str,
    weight_format: WeightFormat,
    dtype: torch.dtype,
    rows: int,
    inputs: int,
    exponent: int,
    seed: int,
) -> None:
    """Among them weights so small that float16 scales are subnormal or vanish."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, inputs, generator=generator) * 10.0**exponent
    weight[torch.rand(rows, inputs, generator=generator) < 0.1] = 0
    weight[0] = 0
    assert_same_codes(isa, weight.to(dtype), weight_format)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("weight_format", FORMATS, ids=lambda f: f.name.lower())
def test_ties_round_to_even_and_the_first_extreme_counts(isa: str, weight_format: WeightFormat) -> None:
    steps = torch.arange(-16, 16) / 2
    weight = torch.stack((steps, steps.flip(0), -steps, torch.full((32,), 3.0), torch.tensor([1.0, -1] * 16)))
    assert_same_codes(isa, weight, weight_format)


@pytest.mark.parametrize("isa", ISAS)
def test_a_scale_beyond_float16_is_infinite_in_both(isa: str) -> None:
    weight = torch.full((2, 64), 1e8)
    expected = quantize_weight(weight, WeightFormat.INT8_GROUP)
    assert torch.equal(forced_kernels(isa).quantize(weight, WeightFormat.INT8_GROUP).scales, expected.scales)


def test_formats_with_shifts_are_refused() -> None:
    with pytest.raises(KeyError):
        forced_kernels("plain").quantize(torch.ones(2, 32), WeightFormat.INT4_SHIFT)
