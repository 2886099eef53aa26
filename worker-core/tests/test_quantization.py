"""Quantizing at load: the tokens of the floats that the codes stand for, and little lost on real text."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from forced_text import log_probabilities, perplexity
from safetensors.torch import load_file, save_file
from tiny_models import FAMILIES, VOCAB_SIZE, SaveModel
from training.corpus.stories import story

from sluice_worker.config import EngineConfig, QuantizationName
from sluice_worker.engine import Engine
from sluice_worker.kernels.cpu.build import find_compiler
from sluice_worker.loading.loader import LoadedModel, load_model
from sluice_worker.quant.recipe import quantize
from sluice_worker.quant.stacking import stack_weights
from sluice_worker.quant.weights import (
    QuantizedWeight,
    WeightFormat,
    quantize_int4,
    quantize_int8,
    quantize_int8_group,
)
from sluice_worker.sampling_params import SamplingParams

BUNDLED = Path(__file__).parents[1] / "models" / "sluice-tiny"
QUANTIZED: tuple[QuantizationName, ...] = ("int8", "int4")
PROMPTS = [
    torch.randint(0, VOCAB_SIZE, (n,), generator=torch.Generator().manual_seed(n)).tolist() for n in (1, 33)
]
needs_compiler = pytest.mark.skipif(find_compiler() is None, reason="no C++ compiler")


def tokens(folder: Path, **settings: Any) -> list[list[int]]:
    engine = Engine(EngineConfig(model=str(folder), dtype="float32", num_kv_blocks=16, **settings))
    params = SamplingParams(temperature=0, max_tokens=40)
    return [result.token_ids for result in engine.generate(PROMPTS, params)]


def load(folder: Path, quantization: QuantizationName = "none", **settings: Any) -> LoadedModel:
    config = EngineConfig(model=str(folder), num_kv_blocks=8, quantization=quantization, **settings)
    return load_model(config)


def dequantized(folder: Path, quantization: QuantizationName, copy: Path) -> Path:
    """A plain checkpoint of the floats that the codes stand for."""
    shutil.copytree(folder, copy)
    tensors = load_file(copy / "model.safetensors")
    tied = "lm_head.weight" not in tensors
    for name, tensor in tensors.items():
        if name.endswith("_proj.weight") or name == (
            "model.embed_tokens.weight" if tied else "lm_head.weight"
        ):
            quantized = quantize(tensor, quantization, head="_proj" not in name)
            assert isinstance(quantized, QuantizedWeight)
            tensors[name] = quantized.dequantize()
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    return copy


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("quantization", QUANTIZED)
def test_the_tokens_are_those_of_the_dequantized_checkpoint(
    save_model: SaveModel, tmp_path: Path, family: str, quantization: QuantizationName
) -> None:
    _, folder = save_model(family)
    plain = dequantized(folder, quantization, tmp_path / "plain")
    found = tokens(folder, kernels="reference", quantization=quantization)
    assert found == tokens(plain, kernels="reference")
    assert found != tokens(folder, kernels="reference")


@needs_compiler
@pytest.mark.parametrize("quantization", QUANTIZED)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_compiled_kernels_differ_from_the_reference_by_rounded_activations_only(
    quantization: QuantizationName, dtype: Any
) -> None:
    ids = stories(1)[0]
    reference, compiled = (
        log_probabilities(load(BUNDLED, quantization, kernels=kernels, dtype=dtype), ids)
        for kernels in ("reference", "cpu")
    )
    assert (reference.exp() * (reference - compiled)).sum(-1).mean() < 1e-3


def stories(count: int) -> list[list[int]]:
    """Texts of the kind that the bundled model was trained on, but none of those."""
    tokenizer = tokenizers.Tokenizer.from_file(str(BUNDLED / "tokenizer.json"))
    rng = random.Random("held-out stories")
    return [tokenizer.encode("<|endoftext|>" + story(rng)).ids for _ in range(count)]


@pytest.mark.parametrize(("quantization", "bar"), [("int8", 1.01), ("int4", 1.04)])
def test_little_is_lost_on_real_text(quantization: QuantizationName, bar: float) -> None:
    texts = stories(25)
    assert perplexity(load(BUNDLED, quantization), texts) < bar * perplexity(load(BUNDLED), texts)


@pytest.mark.parametrize(
    ("quantization", "each", "head"), [("none", 4, 4), ("int8", 1 + 4 / 64, 1 + 4 / 64), ("int4", 4.5 / 8, 1)]
)
def test_what_is_loaded_is_reported(
    save_model: SaveModel, quantization: QuantizationName, each: float, head: float
) -> None:
    model, folder = save_model("llama3")
    info = Engine(EngineConfig(model=str(folder), num_kv_blocks=8, quantization=quantization)).model_info()
    assert info.quantization == quantization
    assert info.dtype == "float32"
    assert info.num_parameters == sum(parameter.numel() for parameter in model.parameters())
    linear = 2 * (64 * (64 + 32 + 32 + 64) + 3 * 64 * 96)
    expected = linear * each + VOCAB_SIZE * 64 * head + 5 * 64 * 4
    assert info.weight_bytes == pytest.approx(expected, rel=0.02)


def test_bfloat16_stays_the_type_of_activations(save_model: SaveModel) -> None:
    _, folder = save_model("qwen2")
    loaded = load(folder, "int8", dtype="bfloat16", kernels="reference")
    assert log_probabilities(loaded, PROMPTS[1]).isfinite().all()
    assert loaded.dtype is torch.bfloat16


# ---- stacking ---------------------------------------------------------------------------------------------


def shifted(weight: torch.Tensor) -> QuantizedWeight:
    quantized = quantize_int4(weight)
    shifts = (torch.randint(-8, 8, quantized.scales.shape) / 8).half()
    return quantized._replace(format=WeightFormat.INT4_SHIFT, shifts=shifts)


@pytest.mark.parametrize(
    ("makers", "weight_format"),
    [
        ((quantize_int8, quantize_int8), WeightFormat.INT8),
        ((quantize_int4, quantize_int4), WeightFormat.INT4_GROUP),
        ((quantize_int4, shifted, shifted), WeightFormat.INT4_SHIFT),
        ((quantize_int4, quantize_int8_group), WeightFormat.INT8_GROUP),
    ],
)
def test_stacked_weights_are_the_parts_one_after_the_other(makers: Any, weight_format: WeightFormat) -> None:
    parts = [make(torch.randn(20 + i, 70)) for i, make in enumerate(makers)]
    stacked = stack_weights(parts)
    assert isinstance(stacked, QuantizedWeight)
    assert stacked.format is weight_format
    assert torch.equal(stacked.dequantize(), torch.cat([part.dequantize() for part in parts]))


def test_formats_that_have_nothing_in_common_meet_in_eight_bits() -> None:
    weight = torch.randn(20, 64)
    stacked = stack_weights([shifted(weight), quantize_int8(weight)])
    assert isinstance(stacked, QuantizedWeight)
    assert stacked.format is WeightFormat.INT8_GROUP
    assert torch.allclose(stacked.dequantize()[20:], weight, atol=0.04)


def test_beside_floats_all_become_floats() -> None:
    floats, codes = torch.randn(3, 64), quantize_int8(torch.randn(4, 64))
    stacked = stack_weights([floats, codes])
    assert isinstance(stacked, torch.Tensor)
    assert torch.equal(stacked, torch.cat([floats, codes.dequantize()]))
