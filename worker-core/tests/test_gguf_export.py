"""Writing GGUF: read back by the format's own package and by our loader, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from parrot import byte_tokenizer
from safetensors.torch import load_file
from staging_tools import stage
from test_cli import run
from tiny_models import VOCAB_SIZE, SaveModel
from tokenizers import Tokenizer as FastTokenizer
from tokenizers import models

from sluice_worker.config import EngineConfig
from sluice_worker.engine import Engine
from sluice_worker.errors import CheckpointError, UnsupportedModelError
from sluice_worker.loading.gguf_export import GgufType, their_name, write_gguf
from sluice_worker.loading.gguf_file import read_gguf
from sluice_worker.loading.model_folder import open_folder, resolve_model
from sluice_worker.quant.weights import quantize_weight
from sluice_worker.quantize_command import convert
from sluice_worker.sampling_params import SamplingParams
from sluice_worker.server.chat_template import template_source
from sluice_worker.server.gguf_vocabulary import gguf_vocabulary
from sluice_worker.server.tokenizer import load_tokenizer
from sluice_worker.staging.manifest import read_manifest

BUNDLED = Path(__file__).parents[1] / "models" / "sluice-tiny"
PROMPT = torch.randint(0, VOCAB_SIZE, (40,), generator=torch.Generator().manual_seed(1)).tolist()
FAMILIES = ["llama", "llama3", "qwen2", "qwen3-tied", "qwen3-untied"]


def write(folder: Path, out: Path, to: GgufType | None) -> Path:
    write_gguf(open_folder(folder, "m"), out, to, {}, quantize_weight, lambda *_: None)
    return out


def generate(path: Path, prompt: list[int] = PROMPT) -> list[int]:
    config = EngineConfig(model=str(path), num_kv_blocks=16, dtype="float32", kernels="reference")
    (result,) = Engine(config).generate([prompt], SamplingParams(temperature=0, max_tokens=40))
    return result.token_ids


def read_by_the_package(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    reader = gguf.GGUFReader(path)
    return {tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type) for tensor in reader.tensors}


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3-tied", "qwen3-untied"])
def test_floats_give_the_very_tokens_of_the_checkpoint(
    save_model: SaveModel, tmp_path: Path, family: str
) -> None:
    _, folder = save_model(family)
    assert generate(write(folder, tmp_path / "m.gguf", None)) == generate(folder)


def test_llama3s_rope_survives(save_model: SaveModel, tmp_path: Path) -> None:
    rope = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "low_freq_factor": 1.0}
    rope |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    _, folder = save_model("llama3", rope_parameters=rope)
    assert generate(write(folder, tmp_path / "m.gguf", "f32")) == generate(folder)


def test_biases_and_a_stretched_context_survive(save_model: SaveModel, tmp_path: Path) -> None:
    rope = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}
    _, folder = save_model("llama", attention_bias=True, mlp_bias=True, rope_parameters=rope)
    path = write(folder, tmp_path / "m.gguf", "f32")
    metadata = read_gguf(path).metadata
    assert (metadata["llama.rope.scaling.type"], metadata["llama.rope.scaling.factor"]) == ("linear", 2.0)
    assert read_by_the_package(path)["blk.1.attn_q.bias"].shape == (64,)


@pytest.mark.parametrize("kind", ["f16", "bf16", "q8_0", "q4_0"])
def test_the_formats_own_package_reads_what_our_codes_stand_for(
    save_model: SaveModel, tmp_path: Path, kind: GgufType
) -> None:
    _, folder = save_model("qwen2")
    read = read_by_the_package(write(folder, tmp_path / "m.gguf", kind))
    weights = load_file(folder / "model.safetensors")
    assert set(read) == {their_name(name) for name in weights}
    step = {"f16": 2**-11, "bf16": 2**-8, "q8_0": 1 / 250, "q4_0": 1 / 7}[kind]
    for name, tensor in weights.items():
        exact, found = tensor.float(), torch.tensor(read[their_name(name)])
        if tensor.dim() == 1:
            assert torch.equal(found, exact)
            continue
        largest = exact.view(-1, 32).abs().amax(dim=1, keepdim=True)
        error = (found - exact).view(-1, 32).abs() / largest
        assert error.max() <= step
        head = "embed" in name or "lm_head" in name
        assert error.max() > step / 40 or (head and kind == "q4_0")
        assert error.max() < 1 / 250 or kind == "bf16" or (kind == "q4_0" and not head)


def test_rows_too_narrow_for_blocks_stay_float16(save_model: SaveModel, tmp_path: Path) -> None:
    _, folder = save_model("llama", hidden_size=72, head_dim=18)
    reader = gguf.GGUFReader(write(folder, tmp_path / "m.gguf", "q8_0"))
    kinds = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    assert (kinds["blk.0.attn_q.weight"], kinds["blk.0.ffn_down.weight"]) == ("F16", "Q8_0")


def test_the_bundled_model_speaks_the_same(tmp_path: Path) -> None:
    convert(open_folder(BUNDLED, "sluice-tiny"), tmp_path / "g", "gguf", replace=False, say=lambda _: None)
    folder = resolve_model(str(tmp_path / "g"))
    ours, theirs = load_tokenizer(open_folder(BUNDLED, "m")), load_tokenizer(folder)
    text = "'then' he left, and\n\n'tell' at 12:30."
    assert theirs.encode_prompt(text) == ours.encode_prompt(text)
    assert theirs.special_tokens["eos_token"] == "<|im_end|>"
    assert template_source(folder, theirs) == template_source(open_folder(BUNDLED, "m"), ours)
    prompt = ours.encode_prompt("The capital of France is")
    assert generate(tmp_path / "g", prompt) == generate(BUNDLED, prompt)
    assert sorted(path.name for path in (tmp_path / "g").iterdir()) == ["MODEL_CARD.md", "model.gguf"]


def test_the_nearest_named_pattern_is_taken_and_its_agreement_told() -> None:
    folder = open_folder(BUNDLED, "sluice-tiny")
    assert gguf_vocabulary(folder, ["Once upon a time."] * 19 + ["'tell'"]).agreement == 0.95
    found = gguf_vocabulary(folder, ["one\n\ntwo", "A story of 12 foxes."])
    assert (found.pattern, found.agreement) == ("qwen2", 1.0)
    with pytest.raises(UnsupportedModelError, match="splits text in a way that has no name in GGUF"):
        gguf_vocabulary(folder, ["'tell'"])


def test_other_tokenizers_and_architectures_are_refused(save_model: SaveModel, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(BUNDLED, tmp_path / "m"))
    FastTokenizer(models.WordLevel({"a": 0}, unk_token="a")).save(str(folder / "tokenizer.json"))
    with pytest.raises(UnsupportedModelError, match="no byte-level BPE"):
        gguf_vocabulary(open_folder(folder, "m"), ["a"])
    config = json.loads((BUNDLED / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": 100}))
    byte_tokenizer().save(str(folder / "tokenizer.json"))
    with pytest.raises(CheckpointError, match="more tokens than its embedding table has rows"):
        gguf_vocabulary(open_folder(folder, "m"), ["a"])
    (folder / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"no tokenizer\.json"):
        gguf_vocabulary(open_folder(folder, "m"), ["a"])
    with pytest.raises(UnsupportedModelError, match="an attention window"):
        write(save_model("mistral")[1], tmp_path / "m.gguf", None)
    with pytest.raises(UnsupportedModelError, match="has no place in a GGUF file"):
        their_name("model.layers.0.self_attn.rotary.weight")


@pytest.mark.parametrize("to", ["int8", "gguf-q8_0"])
def test_staging_converts(tmp_path: Path, to: str) -> None:
    out = tmp_path / "out"
    assert stage("sluice-tiny", out, to=to).changed
    assert not stage("sluice-tiny", out, to=to).changed
    manifest = read_manifest(out)
    assert manifest is not None and manifest.finished and manifest.request.to == to
    assert {file.name for file in manifest.files} == {p.name for p in out.iterdir()} - {"sluice-stage.json"}
    loaded = Engine(EngineConfig(model=str(out), num_kv_blocks=8, kernels="reference"))
    assert loaded.model_info().quantization == "int8"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.lock", "out"]


def test_a_staged_folder_can_be_converted_and_its_manifest_does_not_come_along(tmp_path: Path) -> None:
    stage("sluice-tiny", tmp_path / "a")
    convert(open_folder(tmp_path / "a", "a"), tmp_path / "b", "int4", replace=False, say=lambda _: None)
    assert read_manifest(tmp_path / "b") is None
    assert resolve_model(str(tmp_path / "b")).stored_bytes < 4_000_000


def test_the_command_writes_gguf(tmp_path: Path) -> None:
    done = run("quantize", "sluice-tiny", str(tmp_path / "out"), "--to", "gguf-q4_0")
    assert done.returncode == 0, done.stderr
    assert "gguf-q4_0, 3.6 MB of weights, before 9.5 MB" in done.stdout
    assert "llama.cpp will take qwen2, which gives the same tokens for 99.7% of 354 texts" in done.stderr
