"""Loading: what works in every layout, and what each broken or foreign folder is told."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import SaveModel

from sluice_worker.config import DTypeName, EngineConfig, RopeConfig
from sluice_worker.device import SMALL_MODEL_BYTES, resolve_device, resolve_dtype
from sluice_worker.engine import Engine
from sluice_worker.errors import (
    CheckpointError,
    ConfigError,
    ModelNotFoundError,
    NotEnoughMemoryError,
    UnsupportedModelError,
)
from sluice_worker.loading.hf_config import FAMILY_DEFAULTS, read_model_config
from sluice_worker.loading.loader import load_model
from sluice_worker.loading.model_folder import open_folder, resolve_model
from sluice_worker.models.registry import BUILDERS
from sluice_worker.sampling_params import SamplingParams


@pytest.fixture
def folder(save_model: SaveModel, tmp_path: Path) -> Path:
    """A private copy of a tiny Llama that a test may damage."""
    return Path(shutil.copytree(save_model("llama")[1], tmp_path / "model"))


def edit_config(folder: Path, **changes: Any) -> Path:
    """Change keys of config.json; `None` removes one."""
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    return folder


def edit_weights(folder: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def load(folder: Path, **settings: Any) -> None:
    load_model(EngineConfig(model=str(folder), num_kv_blocks=4, **settings))


def first_tokens(folder: Path) -> list[int]:
    engine = Engine(EngineConfig(model=str(folder), num_kv_blocks=16))
    return engine.generate([[1, 2, 3]], SamplingParams(temperature=0, max_tokens=20))[0].token_ids


# ---- layouts ----------------------------------------------------------------------------------------------


def test_a_sharded_checkpoint_gives_the_same_tokens(save_model: SaveModel, tmp_path: Path) -> None:
    model, single = save_model("llama")
    model.save_pretrained(tmp_path, max_shard_size="100KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert first_tokens(tmp_path) == first_tokens(single)


def test_a_tied_checkpoint_may_carry_its_output_weights_as_well(
    save_model: SaveModel, tmp_path: Path
) -> None:
    _, tied = save_model("llama3")
    copy = Path(shutil.copytree(tied, tmp_path / "model"))
    edit_weights(copy, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].clone()}))
    assert first_tokens(copy) == first_tokens(tied)


def test_rope_frequencies_stored_by_old_checkpoints_are_ignored(folder: Path) -> None:
    edit_weights(folder, lambda t: t.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}))
    load(folder)


def test_float16_weights_are_converted(folder: Path) -> None:
    edit_weights(folder, lambda t: t.update({name: tensor.half() for name, tensor in t.items()}))
    edit_config(folder, dtype="float16")
    load(folder)
    load(folder, dtype="bfloat16")


def test_the_name_of_a_folder_is_the_name_of_the_model(folder: Path) -> None:
    assert resolve_model(str(folder)).name == "model"


def test_optional_files_are_listed_when_present(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")
    (folder / "chat_template.jinja").write_text("")
    found = resolve_model(str(folder))
    assert found.tokenizer == folder / "tokenizer.json"
    assert found.chat_template == folder / "chat_template.jinja"
    assert found.tokenizer_config is None


# ---- config.json ------------------------------------------------------------------------------------------


def test_both_spellings_of_rope_settings_and_dtype_are_read(folder: Path) -> None:
    scaling = {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    edit_config(folder, rope_parameters={"rope_type": "llama3", "rope_theta": 5e5, **scaling})
    new = read_model_config(open_folder(folder, "m"))
    old_style = {"rope_theta": 5e5, "rope_scaling": {"type": "llama3", **scaling}, "torch_dtype": "float32"}
    edit_config(folder, rope_parameters=None, dtype=None, **old_style)
    old = read_model_config(open_folder(folder, "m"))
    assert old == new
    assert new.rope == RopeConfig(theta=5e5, kind="llama3", factor=8.0, original_context=64)


def test_linear_rope_scaling_matches_transformers(save_model: SaveModel) -> None:
    rope = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}
    model, path = save_model("llama", rope_parameters=rope)
    out = model.generate(
        torch.tensor([[1, 2, 3]]),
        attention_mask=torch.ones(1, 3, dtype=torch.long),
        do_sample=False,
        max_new_tokens=20,
        pad_token_id=0,
    )
    assert first_tokens(path) == out[0, 3:].tolist()


@pytest.mark.parametrize(
    ("architecture", "changes", "windows"),
    [
        ("LlamaForCausalLM", {"sliding_window": 8}, (None, None)),
        ("MistralForCausalLM", {"sliding_window": 8}, (8, 8)),
        ("MistralForCausalLM", {}, (4096, 4096)),
        ("Qwen2ForCausalLM", {"sliding_window": 8}, (None, None)),
        ("Qwen2ForCausalLM", {"sliding_window": 8, "use_sliding_window": True}, (None, None)),
        (
            "Qwen2ForCausalLM",
            {"sliding_window": 8, "use_sliding_window": True, "max_window_layers": 1},
            (None, 8),
        ),
        (
            "Qwen3ForCausalLM",
            {
                "sliding_window": 8,
                "use_sliding_window": True,
                "layer_types": ["sliding_attention", "full_attention"],
            },
            (8, None),
        ),
    ],
)
def test_which_layers_have_a_sliding_window(
    folder: Path, architecture: str, changes: dict[str, Any], windows: tuple[int | None, ...]
) -> None:
    edit_config(folder, architectures=[architecture], **changes)
    assert read_model_config(open_folder(folder, "m")).sliding_windows == windows


@pytest.mark.parametrize(("eos", "expected"), [(5, (5,)), ([5, 6], (5, 6))])
def test_end_tokens_come_from_generation_config(folder: Path, eos: Any, expected: tuple[int, ...]) -> None:
    edit_config(folder, eos_token_id=9)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": eos}))
    assert read_model_config(open_folder(folder, "m")).eos_token_ids == expected
    (folder / "generation_config.json").unlink()
    assert read_model_config(open_folder(folder, "m")).eos_token_ids == (9,)


def test_every_architecture_that_is_read_can_be_built() -> None:
    assert FAMILY_DEFAULTS.keys() == BUILDERS.keys()


# ---- refusals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "GPT2LMHeadModel.*LlamaForCausalLM.*Qwen3ForCausalLM"),
        ({"quantization_config": {"quant_method": "exl2"}}, "exl2; awq, gptq"),
        ({"hidden_act": "gelu"}, "gelu.*silu"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, "yarn.*linear, llama3"),
        ({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "part of each head"),
        ({"dtype": "float8_e4m3fn"}, "float8_e4m3fn.*bfloat16"),
    ],
)
def test_what_is_not_implemented_is_refused_by_name(folder: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UnsupportedModelError, match=said):
        load(edit_config(folder, **changes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"architectures": None}, "architectures"),
        ({"hidden_size": None}, "hidden_size"),
        ({"num_key_value_heads": 3}, "4 heads, 3 key-value heads"),
        ({"num_hidden_layers": 0}, "0 layers"),
        ({"vocab_size": "many"}, "makes no sense"),
        ({"quantization_config": "int8"}, "quantization_config that is no object"),
        ({"rope_scaling": "x", "rope_parameters": None}, "rope"),
        (
            {
                "architectures": ["Qwen3ForCausalLM"],
                "use_sliding_window": True,
                "layer_types": ["full_attention"],
            },
            "1 layer_types for 2 layers",
        ),
    ],
)
def test_a_config_that_cannot_be_right_is_refused(folder: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        load(edit_config(folder, **changes))


def test_a_folder_without_config_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        load(tmp_path)


def test_a_broken_config_names_the_file(folder: Path) -> None:
    (folder / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json is not a readable JSON object"):
        load(folder)


def test_a_folder_without_safetensors_says_what_it_found(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin.*save_pretrained"):
        load(folder)


def test_a_missing_shard_is_named(save_model: SaveModel, tmp_path: Path) -> None:
    save_model("llama")[0].save_pretrained(tmp_path, max_shard_size="100KB")
    victim = sorted(tmp_path.glob("*.safetensors"))[0]
    victim.unlink()
    with pytest.raises(CheckpointError, match=victim.name):
        load(tmp_path)


def test_a_broken_index_is_named(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text('{"weight_map": 3}')
    with pytest.raises(CheckpointError, match=r"model\.safetensors\.index\.json"):
        load(folder)


def test_a_file_that_is_not_safetensors_is_named(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"not a tensor")
    with pytest.raises(CheckpointError, match=r"model\.safetensors is not a readable"):
        load(folder)


def test_a_missing_tensor_is_named(folder: Path) -> None:
    edit_weights(folder, lambda t: t.pop("model.layers.1.mlp.up_proj.weight"))
    with pytest.raises(CheckpointError, match=r"no tensor model\.layers\.1\.mlp\.up_proj\.weight"):
        load(folder)


def test_tensors_nobody_uses_are_named(folder: Path) -> None:
    edit_config(folder, num_hidden_layers=1)
    with pytest.raises(CheckpointError, match=r"no use for: model\.layers\.1\.input.* and 4 more"):
        load(folder)


def test_a_tensor_of_another_shape_is_named(folder: Path) -> None:
    edit_config(folder, intermediate_size=80)
    with pytest.raises(CheckpointError, match=r"gate_proj\.weight .* shape \[96, 64\].*\[80, 64\]"):
        load(folder)


def test_a_tensor_of_another_type_is_named(folder: Path) -> None:
    edit_weights(folder, lambda t: t.update({"model.norm.weight": torch.ones(64, dtype=torch.int8)}))
    with pytest.raises(UnsupportedModelError, match=r"model\.norm\.weight.* I8; supported are F32"):
        load(folder)


def test_a_name_that_is_nothing_says_what_a_name_can_be() -> None:
    with pytest.raises(ModelNotFoundError, match="folder"):
        resolve_model("./no/such/folder")


def test_a_hub_name_without_network_says_what_was_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelNotFoundError, match=r"nobody/nothing.*bundled model.*Hub"):
        resolve_model("nobody/nothing")


def test_a_model_larger_than_memory_is_refused_before_it_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sluice_worker.loading.loader.free_memory_bytes", lambda _: 1000)
    with pytest.raises(NotEnoughMemoryError, match="GiB"):
        load(folder)


# ---- sizes and devices ------------------------------------------------------------------------------------


def test_the_cache_is_as_large_as_the_budget_allows(folder: Path) -> None:
    # 2 layers, 2 kv heads of 16 numbers, keys and values in float32: 512 bytes a token.
    loaded = load_model(EngineConfig(model=str(folder), block_size=16, kv_cache_bytes=20 * 16 * 512 + 5))
    assert (loaded.num_blocks, loaded.max_model_len) == (20, 320)


def test_the_cache_is_no_larger_than_could_be_used(folder: Path) -> None:
    loaded = load_model(EngineConfig(model=str(folder), block_size=16, max_num_seqs=3, max_model_len=100))
    assert (loaded.num_blocks, loaded.max_model_len) == (3 * 7, 100)


def test_a_budget_below_one_block_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="one block"):
        load_model(EngineConfig(model=str(folder), kv_cache_bytes=100))


def test_the_context_is_never_longer_than_the_model_was_made_for(folder: Path) -> None:
    loaded = load_model(EngineConfig(model=str(folder), max_model_len=100_000, max_num_seqs=1))
    assert loaded.max_model_len == 512


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ConfigError, match="max_num_batched_tokens"):
        EngineConfig(model="m", max_num_seqs=64, max_num_batched_tokens=32)
    with pytest.raises(ConfigError, match="max_chunk"):
        EngineConfig(model="m", max_chunk=0)


def test_devices(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert resolve_device("auto") == resolve_device("cpu") == torch.device("cpu")
    with pytest.raises(ConfigError, match="CUDA"):
        resolve_device("cuda")
    assert resolve_device("mps") == torch.device("cpu")
    assert "mps is not supported" in caplog.text


@pytest.mark.parametrize(
    ("asked", "checkpoint", "stored_bytes", "device", "dtype"),
    [
        ("auto", "bfloat16", SMALL_MODEL_BYTES + 1, "cpu", torch.bfloat16),
        ("auto", "torch.float32", SMALL_MODEL_BYTES + 1, "cpu", torch.float32),
        ("auto", "float16", SMALL_MODEL_BYTES + 1, "cpu", torch.bfloat16),
        ("auto", "bfloat16", SMALL_MODEL_BYTES, "cpu", torch.float32),
        ("auto", "bfloat16", SMALL_MODEL_BYTES, "cuda", torch.bfloat16),
        ("bfloat16", "float32", 1, "cpu", torch.bfloat16),
        ("float32", "float8_e4m3fn", 1, "cpu", torch.float32),
    ],
)
def test_dtypes(
    asked: DTypeName, checkpoint: str, stored_bytes: int, device: str, dtype: torch.dtype
) -> None:
    assert resolve_dtype(asked, checkpoint, stored_bytes, torch.device(device)) is dtype
