"""Tiny random models of every supported family, made with transformers' own classes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

SaveModel = Callable[..., tuple[Any, Path]]
"""The `save_model` fixture: family and config overrides to the model and its folder."""

VOCAB_SIZE = 199

SHAPE = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,  # wide, so that the most likely token stands clear of the second
    "bos_token_id": None,
    "eos_token_id": None,
}

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}

FAMILIES: dict[str, tuple[str, int, dict[str, object]]] = {
    "llama": ("Llama", 7, {}),
    "llama3": ("Llama", 9, {"rope_parameters": LLAMA3_ROPE, "tie_word_embeddings": True}),
    "mistral": ("Mistral", 8, {"sliding_window": 24}),
    "qwen2": ("Qwen2", 7, {}),
    "qwen3-tied": ("Qwen3", 9, {"tie_word_embeddings": True, "head_dim": 32}),
    "qwen3-untied": ("Qwen3", 7, {"tie_word_embeddings": False, "head_dim": 16}),
}
"""Class prefix in transformers, a seed that gives no near-ties, and config options."""


def build(family: str, **overrides: object) -> PreTrainedModel:
    """A random model of a family.

    Biases and norm weights are random too: at their initial 0 and 1 they would hide a mistake with them.
    """
    name, seed, options = FAMILIES[family]
    config = getattr(transformers, f"{name}Config")(**{**SHAPE, **options, **overrides})
    torch.manual_seed(seed)
    model = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    for parameter_name, parameter in model.named_parameters():
        if parameter_name.endswith("bias") or "norm" in parameter_name:
            torch.nn.init.normal_(parameter, mean=float("norm" in parameter_name), std=0.2)
    return model
