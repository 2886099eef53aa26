"""Checkpoints quantized by others: the tokens of the floats their codes stand for, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from forced_text import log_probabilities
from quantized_folders import (
    WriteLayer,
    awq,
    bitsandbytes_4_bit,
    bitsandbytes_8_bit,
    compressed_4_bit,
    compressed_8_bit,
    gptq,
    write_folder,
)
from safetensors.torch import load_file, save_file
from tiny_models import VOCAB_SIZE, SaveModel

from sluice_worker.config import EngineConfig
from sluice_worker.engine import Engine
from sluice_worker.errors import CheckpointError, UnsupportedModelError
from sluice_worker.kernels.cpu.build import find_compiler
from sluice_worker.loading.loader import load_model
from sluice_worker.sampling_params import SamplingParams

SHAPE = {"hidden_size": 128, "intermediate_size": 256, "initializer_range": 0.15}
PROMPT = torch.randint(0, VOCAB_SIZE, (40,), generator=torch.Generator().manual_seed(1)).tolist()
AWQ = {"quant_method": "awq", "bits": 4, "version": "GEMM", "zero_point": True}
GPTQ = {"quant_method": "gptq", "desc_act": False}


def compressed(layout: str, bits: int, strategy: str, size: int | None = None) -> dict[str, Any]:
    weights = {"num_bits": bits, "type": "int", "strategy": strategy, "group_size": size, "actorder": None}
    return {
        "quant_method": "compressed-tensors",
        "format": layout,
        "config_groups": {"g": {"weights": weights}},
    }


FORMATS: dict[str, tuple[dict[str, Any], WriteLayer, str]] = {
    "awq-32": (AWQ | {"group_size": 32}, awq(32), "awq"),
    "awq-128": (AWQ | {"group_size": 128}, awq(128), "awq"),
    "awq-symmetric": (AWQ | {"group_size": 64}, awq(64, symmetric=True), "awq"),
    "gptq-4": (GPTQ | {"bits": 4, "group_size": 64}, gptq(4, 64, symmetric=True), "int4"),
    "gptq-4-zeros": (GPTQ | {"bits": 4, "group_size": 32}, gptq(4, 32, symmetric=False), "int4"),
    "gptq-4-v2": (
        GPTQ | {"bits": 4, "group_size": 128, "checkpoint_format": "gptq_v2"},
        gptq(4, 128, symmetric=False, stored_less=0),
        "int4",
    ),
    "gptq-4-channels": (GPTQ | {"bits": 4, "group_size": -1}, gptq(4, -1, symmetric=True), "int4"),
    "gptq-8": (GPTQ | {"bits": 8, "group_size": 128}, gptq(8, 128, symmetric=True), "int8"),
    "gptq-8-zeros": (GPTQ | {"bits": 8, "group_size": 128}, gptq(8, 128, symmetric=False), "none"),
    "gptq-desc-act": (
        GPTQ | {"bits": 4, "group_size": 64, "desc_act": True},
        gptq(4, 64, symmetric=True, shuffled=True),
        "none",
    ),
    "compressed-8": (compressed("int-quantized", 8, "channel"), compressed_8_bit, "int8"),
    "compressed-4": (compressed("pack-quantized", 4, "group", 128), compressed_4_bit(128, True), "int4"),
    "compressed-4-zeros": (
        compressed("pack-quantized", 4, "group", 32),
        compressed_4_bit(32, symmetric=False),
        "int4",
    ),
    "bitsandbytes-8": ({"quant_method": "bitsandbytes", "load_in_8bit": True}, bitsandbytes_8_bit, "int8"),
    "bitsandbytes-4": (
        {"quant_method": "bitsandbytes", "load_in_4bit": True},
        bitsandbytes_4_bit(nested=False),
        "none",
    ),
    "bitsandbytes-4-nested": (
        {"quant_method": "bitsandbytes", "load_in_4bit": True},
        bitsandbytes_4_bit(nested=True),
        "none",
    ),
}
"""The `quantization_config`, how a layer is written, and what is reported."""

every_format = pytest.mark.parametrize("name", FORMATS)


@pytest.fixture(scope="module")
def plain(save_model: SaveModel) -> Path:
    return save_model("llama", **SHAPE)[1]


def config(folder: Path, **settings: Any) -> EngineConfig:
    return EngineConfig(model=str(folder), num_kv_blocks=8, **{"dtype": "float32", **settings})


def generate(folder: Path, **settings: Any) -> tuple[list[int], str]:
    engine = Engine(config(folder, **settings))
    (result,) = engine.generate([PROMPT], SamplingParams(temperature=0, max_tokens=40))
    return result.token_ids, engine.model_info().quantization


@contextmanager
def changed_tensors(plain: Path, folder: Path, name: str) -> Iterator[tuple[Path, dict[str, torch.Tensor]]]:
    """A checkpoint in the format `name`, and its tensors to be changed."""
    settings, write_layer, _ = FORMATS[name]
    quantized, _ = write_folder(plain, folder, settings, write_layer)
    tensors = load_file(quantized / "model.safetensors")
    yield quantized, tensors
    save_file(tensors, quantized / "model.safetensors")


@every_format
def test_the_tokens_are_those_of_the_dequantized_checkpoint(name: str, plain: Path, tmp_path: Path) -> None:
    settings, write_layer, reported = FORMATS[name]
    quantized, twin = write_folder(plain, tmp_path, settings, write_layer)
    found, quantization = generate(quantized, kernels="reference")
    assert found == generate(twin, kernels="reference")[0]
    assert quantization == reported


@pytest.mark.skipif(find_compiler() is None, reason="no C++ compiler")
@every_format
def test_the_compiled_kernels_compute_with_the_same_codes(name: str, plain: Path, tmp_path: Path) -> None:
    settings, write_layer, reported = FORMATS[name]
    quantized, twin = write_folder(plain, tmp_path, settings, write_layer)
    found = log_probabilities(load_model(config(quantized, kernels="cpu")), PROMPT)
    exact = log_probabilities(load_model(config(twin, kernels="cpu")), PROMPT)
    # Activations are rounded to 8 bits where weights are codes; a wrong code is off by a hundred times more.
    assert (found - exact).abs().mean() < (1e-5 if reported == "none" else 0.1)


def test_layers_that_were_left_as_floats_stay_so_or_are_quantized_as_asked(
    plain: Path, tmp_path: Path
) -> None:
    settings, write_layer, _ = FORMATS["awq-32"]
    quantized, twin = write_folder(plain, tmp_path, settings, write_layer, but=("v_proj", "layers.1.mlp"))
    assert generate(quantized, kernels="reference")[0] == generate(twin, kernels="reference")[0]
    sizes = {
        asked: load_model(config(quantized, quantization=asked)).weight_bytes for asked in ("none", "int8")
    }
    floats = 3 * 256 * 128 + VOCAB_SIZE * 128  # the MLP and the output layer; v_proj merges with q and k
    assert sizes["none"] - sizes["int8"] == pytest.approx(3 * floats, rel=0.15)


def test_a_bias_that_is_not_zero_is_not_forgotten(plain: Path, tmp_path: Path) -> None:
    with changed_tensors(plain, tmp_path, "gptq-4") as (quantized, tensors):
        tensors["model.layers.0.mlp.up_proj.bias"][3] = 1
    with pytest.raises(CheckpointError, match=r"no use for: model\.layers\.0\.mlp\.up_proj\.bias"):
        load_model(config(quantized))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"quant_method": "exl2"}, "exl2; awq, gptq, compressed-tensors, .* and GGUF"),
        ({"quant_method": "awq", "bits": 4, "version": "gemv"}, "layout gemv; 4 bits in the layout gemm"),
        (compressed("float-quantized", 8, "channel"), "compressed-tensors.*int-quantized with 8 bits"),
        ({"quant_method": "gptq", "bits": 3}, "3 bits.*4 or 8 bits"),
        (
            {"quant_method": "gptq", "bits": 4, "checkpoint_format": "marlin"},
            "layout marlin.*gptq and gptq_v2",
        ),
    ],
)
def test_what_is_not_read_is_refused_with_what_to_use(
    plain: Path, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    quantized, _ = write_folder(plain, tmp_path, changes, FORMATS["awq-32"][1])
    with pytest.raises(UnsupportedModelError, match=said):
        load_model(config(quantized))


def test_tensors_of_another_group_size_are_named(plain: Path, tmp_path: Path) -> None:
    quantized, _ = write_folder(plain, tmp_path, AWQ | {"group_size": 64}, awq(32))
    with pytest.raises(CheckpointError, match=r"q_proj\.qzeros .* has shape \[4, 16\].*\[2, 16\]"):
        load_model(config(quantized))


def test_groups_that_do_not_exist_are_refused(plain: Path, tmp_path: Path) -> None:
    with changed_tensors(plain, tmp_path, "gptq-4") as (quantized, tensors):
        tensors["model.layers.0.mlp.up_proj.g_idx"][3] = 2
    with pytest.raises(CheckpointError, match=r"up_proj\.g_idx names groups"):
        load_model(config(quantized))


def test_a_broken_description_of_4_bit_weights_is_named(plain: Path, tmp_path: Path) -> None:
    name = "model.layers.0.self_attn.q_proj.weight.quant_state.bitsandbytes__nf4"
    with changed_tensors(plain, tmp_path, "bitsandbytes-4") as (quantized, tensors):
        tensors[name] = torch.tensor(list(json.dumps({"blocksize": 64}).encode()), dtype=torch.uint8)
    with pytest.raises(CheckpointError, match="bitsandbytes__nf4 cannot be read"):
        load_model(config(quantized))
