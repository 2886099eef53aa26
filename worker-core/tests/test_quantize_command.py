"""Quantizing ahead: the same model as quantizing at load, bit for bit, in a folder that appears whole."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from forced_text import log_probabilities
from safetensors.torch import load_file, save_file
from test_cli import run
from tiny_models import VOCAB_SIZE, SaveModel

from sluice_worker.config import EngineConfig, QuantizationName
from sluice_worker.errors import CheckpointError, ConfigError, UnsupportedModelError
from sluice_worker.loading import export
from sluice_worker.loading.loader import LoadedModel, load_model
from sluice_worker.loading.model_folder import open_folder
from sluice_worker.quant.weights import quantize_weight

BUNDLED = Path(__file__).parents[1] / "models" / "sluice-tiny"
PROMPT = torch.randint(0, VOCAB_SIZE, (40,), generator=torch.Generator().manual_seed(1)).tolist()
SAME_WEIGHTS = ("num_parameters", "weight_bytes", "quantization", "dtype")


def write(folder: Path, out: Path, to: QuantizationName, **options: Any) -> Path:
    export.write_quantized(open_folder(folder, "m"), out, to, quantize_weight, lambda *_: None, **options)
    return out


def load(folder: Path, **settings: Any) -> LoadedModel:
    return load_model(EngineConfig(model=str(folder), num_kv_blocks=8, **settings))


@pytest.mark.parametrize("family", ["llama", "llama3", "qwen2", "qwen3-untied"])
@pytest.mark.parametrize("to", ["int8", "int4"])
def test_it_is_bitwise_the_model_quantized_at_load(
    save_model: SaveModel, tmp_path: Path, family: str, to: QuantizationName
) -> None:
    _, folder = save_model(family, hidden_size=72, head_dim=18)
    ahead, at_load = load(write(folder, tmp_path / "out", to)), load(folder, quantization=to)
    assert torch.equal(log_probabilities(ahead, PROMPT), log_probabilities(at_load, PROMPT))
    assert [getattr(ahead, name) for name in SAME_WEIGHTS] == [
        getattr(at_load, name) for name in SAME_WEIGHTS
    ]
    assert ahead.quantization == to


def test_the_type_of_activations_is_the_same_however_much_smaller_the_files_are(
    save_model: SaveModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(save_model("llama")[1], tmp_path / "in"))
    config = json.loads((folder / "config.json").read_text()) | {"dtype": "bfloat16"}
    (folder / "config.json").write_text(json.dumps(config))
    out = write(folder, tmp_path / "out", "int4")
    between = (open_folder(folder, "in").stored_bytes + open_folder(out, "out").stored_bytes) // 2
    monkeypatch.setattr("sluice_worker.device.SMALL_MODEL_BYTES", between)
    assert load(out).dtype is load(folder, quantization="int4").dtype is torch.bfloat16


def test_a_large_result_is_several_files(
    save_model: SaveModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "FILE_BYTES", 20_000)
    _, folder = save_model("llama")
    out = write(folder, tmp_path / "out", "int8")
    assert len(list(out.glob("*.safetensors"))) > 2
    assert torch.equal(
        log_probabilities(load(out), PROMPT), log_probabilities(load(folder, quantization="int8"), PROMPT)
    )


def test_what_is_there_is_kept_unless_it_is_to_be_replaced(save_model: SaveModel, tmp_path: Path) -> None:
    _, folder = save_model("llama")
    out = write(folder, tmp_path / "out", "int8")
    with pytest.raises(ConfigError, match=r"out exists.*--force"):
        write(folder, out, "int4")
    assert load(out).quantization == "int8"
    write(folder, out, "int4", replace=True)
    assert load(out).quantization == "int4"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_failure_leaves_nothing_behind(save_model: SaveModel, tmp_path: Path) -> None:
    _, folder = save_model("llama")
    broken = Path(shutil.copytree(folder, tmp_path / "in" / "model"))
    tensors = load_file(broken / "model.safetensors")
    tensors["model.norm.weight"] = torch.ones(64, dtype=torch.int8)
    save_file(tensors, broken / "model.safetensors")
    with pytest.raises(UnsupportedModelError, match=r"model\.norm\.weight"):
        write(broken, tmp_path / "out" / "q", "int8")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_quantized_model_is_not_quantized_again(save_model: SaveModel, tmp_path: Path) -> None:
    _, folder = save_model("llama")
    out = write(folder, tmp_path / "out", "int8")
    with pytest.raises(ConfigError, match="quantized already"):
        write(out, tmp_path / "again", "int4")


def test_another_version_and_misshapen_scales_are_refused(save_model: SaveModel, tmp_path: Path) -> None:
    _, folder = save_model("llama")
    out = write(folder, tmp_path / "out", "int4")
    tensors = load_file(out / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.scales"
    save_file({**tensors, name: tensors[name][:, :1].clone()}, out / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"up_proj\.scales has shape \[96, 1\]"):
        load(out)
    settings = json.loads((out / "config.json").read_text())
    settings["quantization_config"]["format"] = 2
    (out / "config.json").write_text(json.dumps(settings))
    with pytest.raises(UnsupportedModelError, match=r"format 2.*Quantize the model again"):
        load(out)


def test_the_command_writes_a_folder_with_all_that_serving_needs(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run("quantize", "sluice-tiny", str(out), "--to", "int4")
    assert done.returncode == 0, done.stderr
    assert "int4, 3.2 MB of weights, before 9.5 MB" in done.stdout
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (out / name).read_bytes() == (BUNDLED / name).read_bytes()
    again = run("quantize", "sluice-tiny", str(out), "--to", "int4")
    assert (again.returncode, again.stderr.splitlines()[0][:15]) == (1, "sluice-worker: ")
    assert "--to is 'int2'; choose int8, int4, gguf," in run("quantize", "m", "o", "--to", "int2").stderr
