"""GGUF files made with the format's own Python package, each with its twin: a plain checkpoint of the floats.

The package can write Q8_0 and Q4_0; blocks of the K types are random bytes, and what they stand for is what
the package reads in them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from safetensors.torch import load_file, save_file

Array = np.ndarray[Any, Any]
ARCHITECTURES = {"LlamaForCausalLM": "llama", "Qwen2ForCausalLM": "qwen2", "Qwen3ForCausalLM": "qwen3"}
TABLES = {"model.embed_tokens": "token_embd", "lm_head": "output", "model.norm": "output_norm"}
LAYER_PARTS = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def write_gguf(
    plain: Path,
    out: Path,
    type_of: Callable[[str], Type],
    metadata: Mapping[str, Any] | None = None,
    rope_divisors: Array | None = None,
) -> tuple[Path, Path]:
    """The model in `plain` as a file in `out`, and its twin. `type_of` takes our name of a matrix."""
    config = json.loads((plain / "config.json").read_text())
    file, twin = out / "model.gguf", out / "twin"
    name = ARCHITECTURES[config["architectures"][0]]
    writer = gguf.GGUFWriter(file, name)
    _add_shape(writer, name, config)
    for key, value in (metadata or {}).items():
        _add(writer, key, value)
    if rope_divisors is not None:
        writer.add_tensor("rope_freqs.weight", rope_divisors.astype(np.float32))
    floats = {}
    for ours, tensor in load_file(plain / "model.safetensors").items():
        kind = type_of(ours) if tensor.dim() == 2 else Type.F32
        order = _rows(ours, tensor.shape[0], config) if name == "llama" else np.arange(tensor.shape[0])
        data = _encoded(tensor.float().numpy()[order], kind)
        writer.add_tensor(_their_name(ours), data, raw_dtype=kind)
        decoded = np.empty(tensor.shape, np.float32)
        decoded[order] = gguf.quants.dequantize(data, kind).reshape(tensor.shape)
        floats[ours] = torch.tensor(decoded)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    shutil.copytree(plain, twin)
    save_file(floats, twin / "model.safetensors")
    return file, twin


def _add_shape(writer: Any, name: str, config: Mapping[str, Any]) -> None:
    heads = config["num_attention_heads"]
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config.get("head_dim") or config["hidden_size"] // heads)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base((config.get("rope_parameters") or config)["rope_theta"])


def _add(writer: Any, key: str, value: Any) -> None:
    match value:
        case bool():
            writer.add_bool(key, value)
        case int():
            writer.add_uint32(key, value)
        case str():
            writer.add_string(key, value)
        case _:
            writer.add_array(key, value)


def _their_name(ours: str) -> str:
    stem, _, kind = ours.rpartition(".")
    if stem in TABLES:
        return f"{TABLES[stem]}.{kind}"
    _, _, index, part = stem.split(".", 3)
    return f"blk.{index}.{LAYER_PARTS[part]}.{kind}"


def _rows(ours: str, count: int, config: Mapping[str, Any]) -> Array:
    """Which of our rows each row of a `llama` file is: the halves of queries and keys become neighbours."""
    heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}
    for part, key in heads.items():
        if part in ours:
            return np.arange(count).reshape(config[key], 2, -1).swapaxes(1, 2).flatten()
    return np.arange(count)


def _encoded(weight: Array, kind: Type) -> Array:
    if kind not in (Type.Q4_K, Type.Q5_K, Type.Q6_K):
        return np.asarray(gguf.quants.quantize(weight, kind))
    return random_blocks(kind, weight.shape[0], weight.shape[1] // 256)


def random_blocks(kind: Type, rows: int, blocks: int) -> Array:
    """uint8 [rows, bytes] of numbers around zero, about a hundredth large."""
    rng = np.random.default_rng(rows)
    size = gguf.GGML_QUANT_SIZES[kind][1]
    raw = rng.integers(0, 256, (rows, blocks, size), dtype=np.uint8)

    def set_half(at: int, low: float, high: float) -> None:
        raw[..., at : at + 2] = rng.uniform(low, high, (rows, blocks, 1)).astype(np.float16).view(np.uint8)

    if kind is Type.Q6_K:
        set_half(208, 1e-5, 2e-5)
    else:
        steps = {Type.Q4_K: 15, Type.Q5_K: 31}[kind]
        set_half(0, 2e-4, 4e-4)
        set_half(2, 1e-4 * steps, 2e-4 * steps)
        raw[..., 4:8] = 0  # some groups of nothing but a minimum
    return raw.reshape(rows, -1)
