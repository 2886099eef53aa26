"""The packed linear layers against plain torch, and against themselves with other rows and other threads."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sluice_worker.kernels.cpu.build import find_compiler
from sluice_worker.kernels.cpu.library import library
from sluice_worker.kernels.cpu.packed import pack_linear
from sluice_worker.quant.weights import (
    GROUP,
    QuantizedWeight,
    WeightFormat,
    quantize_int4,
    quantize_int8,
    quantize_int8_group,
)

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="no C++ compiler")

FLOATS = [torch.float32, torch.bfloat16]
every_format = pytest.mark.parametrize("weight_format", list(WeightFormat), ids=lambda f: f.name.lower())


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    library().sluice_set_threads(2)
    yield
    library().sluice_set_threads(1)


def random_weight(
    weight_format: WeightFormat, out_features: int, in_features: int
) -> Tensor | QuantizedWeight:
    weight = torch.randn(out_features, in_features)
    match weight_format:
        case WeightFormat.FLOAT32:
            return weight
        case WeightFormat.BFLOAT16:
            return weight.bfloat16()
        case WeightFormat.INT8:
            return quantize_int8(weight)
        case WeightFormat.INT8_GROUP:
            quantized = quantize_int8_group(weight)
            quantized.codes[0, 0] = -128  # only checkpoints of others have it
            return quantized
        case WeightFormat.INT4_GROUP:
            return quantize_int4(weight)
        case WeightFormat.INT4_SHIFT:
            symmetric = quantize_int4(weight)
            zero_points = torch.randint(0, 16, symmetric.scales.shape)
            return symmetric._replace(format=weight_format, shifts=((zero_points - 8) / 8).half())


def dense(weight: Tensor | QuantizedWeight) -> Tensor:
    return weight.dequantize() if isinstance(weight, QuantizedWeight) else weight.float()


def rounded_activations(x: Tensor, weight_format: WeightFormat) -> tuple[Tensor, Tensor]:
    """What the kernel multiplies with, by the rules in `activations.h`, and the largest scale of a row."""
    if weight_format < WeightFormat.INT8:
        rounded = x.bfloat16() if weight_format is WeightFormat.BFLOAT16 else x
        return rounded.double(), torch.zeros(len(x), 1)
    group = x.shape[1] if weight_format is WeightFormat.INT8 else GROUP
    groups = F.pad(x.float(), (0, -x.shape[1] % group)).unfold(1, group, group)
    largest = groups.abs().amax(dim=-1, keepdim=True)
    scales, inverses = largest / 127, 127 / largest.clamp(min=1e-30)
    # Exact products, as of a fused multiply-add: bfloat16 activations are often nearly ties.
    codes = (groups.double() * inverses.double()).round()
    return (codes * scales).double().flatten(1)[:, : x.shape[1]], scales.flatten(1).amax(dim=1, keepdim=True)


@settings(max_examples=120, deadline=None)
@given(
    weight_format=st.sampled_from(WeightFormat),
    rows=st.integers(0, 40),
    in_features=st.one_of(st.integers(1, 140), st.sampled_from([256, 513, 1100])),
    out_features=st.integers(1, 150),
    dtypes=st.tuples(st.sampled_from(FLOATS), st.sampled_from(FLOATS)),
    with_bias=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_products_match_torch(
    weight_format: WeightFormat,
    rows: int,
    in_features: int,
    out_features: int,
    dtypes: tuple[torch.dtype, torch.dtype],
    with_bias: bool,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    weight = random_weight(weight_format, out_features, in_features)
    bias = torch.randn(out_features) if with_bias else torch.zeros(out_features)
    x = torch.randn(rows, in_features).to(dtypes[0])

    out = pack_linear(weight, bias if with_bias else None)(x, dtypes[1])

    rounded, scale = rounded_activations(x, weight_format)
    w = dense(weight).double()
    exact = rounded @ w.T + bias
    tolerance = 1e-6 * (1 + rounded.abs() @ w.abs().T)  # of sums in float32
    tolerance += 2 * scale * w.abs().max()  # two activations that are nearly ties, rounded the other way
    if dtypes[1] is torch.bfloat16:
        tolerance += exact.abs() / 256
    assert out.dtype is dtypes[1]
    assert out.shape == (rows, out_features)
    assert ((out - exact).abs() <= tolerance).all()


@every_format
@pytest.mark.parametrize(("in_features", "out_features"), [(200, 75), (2100, 64)])
def test_a_row_is_the_same_bits_in_every_batch(
    weight_format: WeightFormat, in_features: int, out_features: int
) -> None:
    layer = pack_linear(random_weight(weight_format, out_features, in_features), torch.randn(out_features))
    x = torch.randn(301, in_features)
    alone = torch.cat([layer(row) for row in x.split(1)])
    for threads in (1, 2, 3):
        library().sluice_set_threads(threads)
        for rows in (*range(41), 120, 121, 301):
            assert torch.equal(layer(x[:rows]), alone[:rows]), f"{rows} rows, {threads} threads"
        shuffled = torch.randperm(301)
        assert torch.equal(layer(x[shuffled]), alone[shuffled])


@every_format
def test_unpacking_gives_back_the_weight(weight_format: WeightFormat) -> None:
    weight = random_weight(weight_format, 70, 100)
    layer = pack_linear(weight)
    rows = torch.tensor([69, 0, 31, 32, 0])
    for dtype in FLOATS:
        assert torch.equal(layer.unpack(rows, dtype), dense(weight)[rows].to(dtype))


@every_format
def test_what_is_not_a_number_stays_in_its_row(weight_format: WeightFormat) -> None:
    layer = pack_linear(random_weight(weight_format, 40, 64))
    x = torch.randn(5, 64)
    before = layer(x)
    x[2, 7], x[4, 40] = float("nan"), float("inf")
    after = layer(x)
    assert torch.equal(after[[0, 1, 3]], before[[0, 1, 3]])
    assert not after[[2, 4]].isfinite().any()


@every_format
def test_nothing_comes_of_nothing(weight_format: WeightFormat) -> None:
    nothing = pack_linear(random_weight(weight_format, 33, 50))
    assert torch.equal(nothing(torch.zeros(3, 50)), torch.zeros(3, 33))
    assert torch.equal(nothing(torch.full((3, 50), 1e-40)), torch.zeros(3, 33))
    assert nothing(torch.empty(0, 50)).shape == (0, 33)


def test_rows_of_a_wider_tensor_are_read_where_they_are() -> None:
    layer = pack_linear(torch.randn(8, 16))
    x = torch.randn(4, 64)
    assert torch.equal(layer(x[:, 16:32]), layer(x[:, 16:32].contiguous()))


def test_a_misshapen_input_is_refused() -> None:
    layer = pack_linear(torch.randn(8, 16))
    with pytest.raises(ValueError, match="must be \\[rows, 16\\]"):
        layer(torch.randn(4, 15))


def test_a_packed_layer_is_as_small_as_its_format() -> None:
    weight = torch.randn(64, 256)
    sizes = {w.format: pack_linear(w).nbytes for w in (quantize_int8(weight), quantize_int4(weight))}
    assert sizes[WeightFormat.INT8] == 64 * 256 + 64 * 4
    assert sizes[WeightFormat.INT4_GROUP] == 64 * 256 * 4.5 / 8


def test_int8_codes_are_within_half_a_step() -> None:
    weight = torch.randn(50, 100) * torch.logspace(-6, 3, 50)[:, None]
    weight[7] = 0
    for quantized in (quantize_int8(weight), quantize_int8_group(weight)):
        step = weight.abs().amax(dim=1, keepdim=True) / 127
        error = (quantized.dequantize() - weight).abs()
        float16_scale = weight.abs() * 2**-10 + 127 * 2**-25
        assert (error <= step / 2 * 1.001 + float16_scale).all()


def test_int4_errs_less_than_q4_0() -> None:
    groups = torch.randn(256, 64, GROUP)
    step = groups.gather(-1, groups.abs().argmax(-1, keepdim=True)) / -8
    q4_0 = (groups / step).round().clamp(-8, 7) * step
    weight = groups.flatten(1)
    ours = (quantize_int4(weight).dequantize() - weight).square().mean()
    assert ours < 0.93 * (q4_0 - groups).square().mean()


@pytest.mark.parametrize("quantize", [quantize_int8, quantize_int8_group, quantize_int4])
def test_quantizing_a_quantized_weight_changes_nothing(quantize: object) -> None:
    assert callable(quantize)
    weight = quantize(torch.randn(20, 90)).dequantize()
    assert torch.allclose(quantize(weight).dequantize(), weight, rtol=2e-3, atol=1e-5)


def test_two_callers_at_once_get_what_each_would_alone() -> None:
    layer = pack_linear(torch.randn(512, 256))
    inputs = [torch.randn(9, 256) for _ in range(4)]
    alone = [layer(x) for x in inputs]
    wrong: list[int] = []

    def call(index: int) -> None:
        wrong.extend(index for _ in range(200) if not torch.equal(layer(inputs[index]), alone[index]))

    callers = [threading.Thread(target=call, args=(index,)) for index in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert wrong == []


def test_denormals_are_zero_on_every_thread() -> None:
    layer = pack_linear(torch.full((4096, 64), 1e-20))
    for _ in range(20):
        assert torch.equal(layer(torch.full((1, 64), 1e-20)), torch.zeros(1, 4096))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts threads in /proc")
def test_a_forked_child_computes_with_threads_of_its_own() -> None:
    layer, x = pack_linear(torch.randn(512, 256)), torch.randn(3, 256)
    expected = layer(x)
    child = os.fork()
    if child == 0:
        same, threads = torch.equal(layer(x), expected), len(list(Path("/proc/self/task").iterdir()))
        os._exit(0 if same and threads == 2 else 1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.slow
@pytest.mark.parametrize("isa", ["avx2", "plain"])
def test_the_other_instruction_sets_pass_the_same_tests(isa: str) -> None:
    """A machine that lacks an instruction set runs `plain` in its stead."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(Path(__file__))]
    done = subprocess.run(
        [*command, "-k", "not other_instruction_sets"],
        env={**os.environ, "SLUICE_CPU_ISA": isa},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


def test_an_instruction_set_can_be_forced() -> None:
    wanted = os.environ.get("SLUICE_CPU_ISA")
    assert library().sluice_isa().decode() in ({wanted, "plain"} if wanted else {"avx512", "avx2", "plain"})
