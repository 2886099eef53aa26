"""The metadata of a GGUF file as the `config.json` that the same model would have.

The keys are those that llama.cpp's converter writes (`gguf-py/gguf/constants.py`). Llama 3's rope scaling is
not among them: the converter writes the divisors of the frequencies as a tensor, from which the setting is
found again.
"""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Mapping
from typing import Any

from sluice_worker.errors import UnsupportedModelError
from sluice_worker.loading.gguf_file import GgufFile

ARCHITECTURES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
"""By `general.architecture`."""

LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
"""What all Llama 3 models have in common; they differ in the factor."""

_TYPES = {0: "float32", 1: "float16"}
"""The type to compute in, by the type of most weights; bfloat16 for all others."""


def config_of(file: GgufFile) -> dict[str, Any]:
    """Keys and values of a config.json.

    Raises `UnsupportedModelError` for another architecture or rope scaling, `KeyError` for a missing key.
    """
    metadata = file.metadata
    name = str(metadata.get("general.architecture"))
    if name not in ARCHITECTURES:
        raise UnsupportedModelError(
            f"{file.path} holds a model of the architecture {name}; supported are {', '.join(ARCHITECTURES)}."
        )
    heads = int(metadata[f"{name}.attention.head_count"])
    width = int(metadata[f"{name}.embedding_length"])
    head_dim = int(metadata.get(f"{name}.attention.key_length", width // heads))
    theta = float(metadata.get(f"{name}.rope.freq_base", 10000.0))
    return {
        "architectures": [ARCHITECTURES[name]],
        "vocab_size": file.tensors["token_embd.weight"].shape[0],
        "hidden_size": width,
        "intermediate_size": metadata[f"{name}.feed_forward_length"],
        "num_hidden_layers": metadata[f"{name}.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": metadata.get(f"{name}.attention.head_count_kv", heads),
        "head_dim": head_dim,
        "rms_norm_eps": metadata[f"{name}.attention.layer_norm_rms_epsilon"],
        "max_position_embeddings": metadata[f"{name}.context_length"],
        "rope_parameters": {"rope_theta": theta, **_rope(file, name, theta, head_dim)},
        "attention_bias": "blk.0.attn_q.bias" in file.tensors,
        "mlp_bias": "blk.0.ffn_up.bias" in file.tensors,
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "dtype": _dtype(file),
        "eos_token_id": _end_tokens(metadata),
    }


def _end_tokens(metadata: Mapping[str, Any]) -> list[int]:
    found = (metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot"))
    return sorted({int(token) for token in found if token is not None})


def _dtype(file: GgufFile) -> str:
    types = Counter(tensor.type for tensor in file.tensors.values() if len(tensor.shape) == 2)
    return _TYPES.get(types.most_common(1)[0][0], "bfloat16") if types else "bfloat16"


def _rope(file: GgufFile, name: str, theta: float, head_dim: int) -> dict[str, Any]:
    kind = str(file.metadata.get(f"{name}.rope.scaling.type", "none"))
    if kind == "linear":
        return {"rope_type": "linear", "factor": float(file.metadata[f"{name}.rope.scaling.factor"])}
    if kind != "none":
        raise UnsupportedModelError(
            f"{file.path} asks for rope scaling of type {kind}; supported are linear and that of Llama 3."
        )
    if "rope_freqs.weight" not in file.tensors:
        return {"rope_type": "default"}
    divisors = _rope_divisors(file)
    factor = round(max(divisors), 3)
    expected = _llama3_divisors(theta, head_dim, factor)
    if not all(math.isclose(a, b, rel_tol=1e-3) for a, b in zip(divisors, expected, strict=True)):
        raise UnsupportedModelError(
            f"{file.path} stretches its rotary frequencies in a way that is not Llama 3's. Use the model's "
            "safetensors checkpoint if its rope_scaling is supported."
        )
    return {"rope_type": "llama3", "factor": factor, **LLAMA3}


def _rope_divisors(file: GgufFile) -> tuple[float, ...]:
    place = file.tensors["rope_freqs.weight"]
    with file.path.open("rb") as opened:
        opened.seek(place.offset)
        return struct.unpack(f"<{place.shape[0]}f", opened.read(4 * place.shape[0]))


def _llama3_divisors(theta: float, head_dim: int, factor: float) -> list[float]:
    """What `layers.rope` divides the frequencies by, one for each."""
    low, high = LLAMA3["low_freq_factor"], LLAMA3["high_freq_factor"]
    divisors = []
    for index in range(0, head_dim, 2):
        rotations = LLAMA3["original_max_position_embeddings"] / (2 * math.pi * theta ** (index / head_dim))
        keep = min(max((rotations - low) / (high - low), 0.0), 1.0)
        divisors.append(1 / ((1 - keep) / factor + keep))
    return divisors
