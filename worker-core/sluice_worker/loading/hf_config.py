"""A Hugging Face `config.json` as a `ModelConfig`.

Both spellings are read: transformers 5 writes `rope_parameters` and `dtype`, before that it was `rope_theta`,
`rope_scaling` and `torch_dtype`. Missing keys get the default of the architecture's own config class, since
files are often saved without them. What the decoder cannot do is refused here, by name, before any weight is
read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from sluice_worker.config import ModelConfig, RopeConfig
from sluice_worker.errors import CheckpointError, UnsupportedModelError
from sluice_worker.loading.gguf_config import config_of
from sluice_worker.loading.gguf_file import read_gguf
from sluice_worker.loading.model_folder import ModelFolder

ROPE_KINDS = ("default", "linear", "llama3")
"""Rope scaling types that `layers.rope` computes."""

FAMILY_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "LlamaForCausalLM": {"max_position_embeddings": 2048},
    "MistralForCausalLM": {"max_position_embeddings": 131072, "sliding_window": 4096},
    "Qwen2ForCausalLM": {"max_position_embeddings": 32768, "sliding_window": 4096},
    "Qwen3ForCausalLM": {"max_position_embeddings": 32768, "sliding_window": 4096, "head_dim": 128},
}
"""The architectures that are supported, and what their files may leave out."""


def read_model_config(folder: ModelFolder) -> ModelConfig:
    """Read `config.json`, and the end tokens of `generation_config.json` when it names some.

    Raises `CheckpointError` for a broken file or a missing key, `UnsupportedModelError` for an architecture
    or option that is not implemented.
    """
    try:
        raw = _read_json(folder.config) if folder.gguf is None else config_of(read_gguf(folder.gguf))
    except KeyError as error:
        raise CheckpointError(f"{folder.config} lacks the key {error}.") from error
    architecture = _architecture(raw, folder.config)
    if architecture not in FAMILY_DEFAULTS:
        raise UnsupportedModelError(
            f"{folder.config} asks for the architecture {architecture}; supported are "
            f"{', '.join(FAMILY_DEFAULTS)}."
        )
    values = {**FAMILY_DEFAULTS[architecture], **raw}
    try:
        _refuse_unsupported(values, folder.config)
        return _model_config(architecture, values, _eos_token_ids(folder, raw))
    except KeyError as error:
        raise CheckpointError(f"{folder.config} lacks the key {error}.") from error
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise CheckpointError(f"{folder.config} holds a value that makes no sense: {error}.") from error


def read_quantization_config(folder: ModelFolder) -> dict[str, Any]:
    """How `config.json` says that the weights are quantized; empty when it does not."""
    settings = _read_json(folder.config).get("quantization_config") or {}
    if not isinstance(settings, dict):
        raise CheckpointError(f"{folder.config} holds a quantization_config that is no object.")
    return settings


def _model_config(architecture: str, raw: Mapping[str, Any], eos: tuple[int, ...]) -> ModelConfig:
    num_heads = int(raw["num_attention_heads"])
    num_layers = int(raw["num_hidden_layers"])
    num_kv_heads = int(raw.get("num_key_value_heads") or num_heads)
    head_dim = int(raw.get("head_dim") or raw["hidden_size"] // num_heads)
    if num_layers < 1 or num_heads % num_kv_heads or head_dim % 2:
        raise ValueError(
            f"{num_layers} layers, {num_heads} heads, {num_kv_heads} key-value heads of {head_dim} numbers"
        )
    qwen2 = architecture == "Qwen2ForCausalLM"
    attention_bias = bool(raw.get("attention_bias")) and architecture != "MistralForCausalLM" and not qwen2
    return ModelConfig(
        architecture=architecture,
        vocab_size=int(raw["vocab_size"]),
        hidden_size=int(raw["hidden_size"]),
        intermediate_size=int(raw["intermediate_size"]),
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        rms_norm_eps=float(raw.get("rms_norm_eps", 1e-6)),
        max_position_embeddings=int(raw["max_position_embeddings"]),
        rope=_rope(raw),
        sliding_windows=_sliding_windows(architecture, raw, num_layers),
        qkv_bias=attention_bias or qwen2,
        o_bias=attention_bias,
        mlp_bias=bool(raw.get("mlp_bias")) and architecture == "LlamaForCausalLM",
        qk_norm=architecture == "Qwen3ForCausalLM",
        tie_word_embeddings=bool(raw.get("tie_word_embeddings", False)),
        dtype=str(raw.get("dtype") or raw.get("torch_dtype") or "float32"),
        eos_token_ids=eos,
    )


def _rope(raw: Mapping[str, Any]) -> RopeConfig:
    """Rope settings of either spelling."""
    settings = _rope_settings(raw)
    kind = _rope_kind(settings)
    if kind == "default":
        return RopeConfig(theta=_theta(raw, settings))
    if kind == "linear":
        return RopeConfig(theta=_theta(raw, settings), kind="linear", factor=float(settings["factor"]))
    context = settings.get("original_max_position_embeddings") or raw["max_position_embeddings"]
    return RopeConfig(
        theta=_theta(raw, settings),
        kind="llama3",
        factor=float(settings["factor"]),
        low_freq_factor=float(settings["low_freq_factor"]),
        high_freq_factor=float(settings["high_freq_factor"]),
        original_context=int(context),
    )


def _rope_settings(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    settings = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    if not isinstance(settings, Mapping):
        raise TypeError(f"rope settings {settings!r}")
    return settings


def _rope_kind(settings: Mapping[str, Any]) -> str:
    return str(settings.get("rope_type") or settings.get("type") or "default")


def _theta(raw: Mapping[str, Any], settings: Mapping[str, Any]) -> float:
    return float(settings.get("rope_theta") or raw.get("rope_theta") or 10000.0)


def _sliding_windows(architecture: str, raw: Mapping[str, Any], num_layers: int) -> tuple[int | None, ...]:
    """Window of each layer: Llama has none, Mistral the same everywhere, Qwen by `layer_types` or from the
    layer `max_window_layers` on."""
    window = raw.get("sliding_window")
    if architecture == "LlamaForCausalLM" or not window:
        return (None,) * num_layers
    if architecture == "MistralForCausalLM":
        return (int(window),) * num_layers
    if not raw.get("use_sliding_window"):
        return (None,) * num_layers
    kinds = raw.get("layer_types")
    if kinds is not None:
        if len(kinds) != num_layers:
            raise ValueError(f"{len(kinds)} layer_types for {num_layers} layers")
        return tuple(int(window) if kind == "sliding_attention" else None for kind in kinds)
    first = int(raw.get("max_window_layers", 28))
    return tuple(int(window) if index >= first else None for index in range(num_layers))


def _refuse_unsupported(raw: Mapping[str, Any], path: Path) -> None:
    """Options that would need other code: say so instead of producing nonsense."""
    if raw.get("hidden_act", "silu") not in ("silu", "swish"):
        raise UnsupportedModelError(
            f"{path} asks for the activation {raw['hidden_act']}; only silu is supported."
        )
    kind = _rope_kind(_rope_settings(raw))
    if kind not in ROPE_KINDS:
        raise UnsupportedModelError(
            f"{path} asks for rope scaling of type {kind}; supported are {', '.join(ROPE_KINDS)}. "
            "If it only stretches the context, remove rope_scaling and lower max_position_embeddings."
        )
    if _rope_settings(raw).get("partial_rotary_factor", raw.get("partial_rotary_factor", 1.0)) != 1.0:
        raise UnsupportedModelError(f"{path} rotates only part of each head; that is not supported.")


def _eos_token_ids(folder: ModelFolder, raw: Mapping[str, Any]) -> tuple[int, ...]:
    """generation_config.json wins: chat models end turns with tokens that config.json does not name."""
    generation = _read_json(folder.generation_config) if folder.generation_config else {}
    eos = generation.get("eos_token_id", raw.get("eos_token_id"))
    if eos is None:
        return ()
    return tuple(int(token) for token in eos) if isinstance(eos, list) else (int(eos),)


def _architecture(raw: Mapping[str, Any], path: Path) -> str:
    names = raw.get("architectures")
    if isinstance(names, list) and names:
        return str(names[0])
    raise CheckpointError(f"{path} does not name its architecture in `architectures`.")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (msgspec.MsgspecError, OSError) as error:
        raise CheckpointError(f"{path} is not a readable JSON object: {error}.") from error
