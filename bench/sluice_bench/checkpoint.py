"""A random checkpoint in the shape of a real model: the same work per token as the real one, no download.

The weights are noise, so the text is too. Rows of the output matrix are zero except for tokens of plain ASCII
letters: greedy decoding then only ever chooses those, and every token shows up as text at once, which a
random token (half a character, an end marker, an id without a string) would not. Where the output matrix is
the embedding, prompts should be of plain tokens too (`plain_ids`), or they would be rows of zeros.

Writing needs torch and safetensors, which the measuring client does not: run it as a child process.

    python -m sluice_bench.checkpoint SHAPE TOKENIZER_FOLDER TARGET_FOLDER [CONTEXT]
"""

from __future__ import annotations

import gc
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

_INITIAL_STD = 0.02
_PLAIN_TOKEN = re.compile(r"^Ġ?[A-Za-z]+$")
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "generation_config.json",
)


class ModelShape(msgspec.Struct, frozen=True, kw_only=True):
    """Dimensions of a Llama model."""

    layers: int
    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    vocab: int
    context: int = 2048
    tied: bool = False
    """The output matrix is the embedding."""


SHAPES: dict[str, ModelShape] = {
    "tinyllama-1.1b": ModelShape(layers=22, hidden=2048, ffn=5632, heads=32, kv_heads=4, vocab=32000),
    "smollm-135m": ModelShape(layers=30, hidden=576, ffn=1536, heads=9, kv_heads=3, vocab=49152, tied=True),
    "toy": ModelShape(layers=2, hidden=64, ffn=128, heads=4, kv_heads=2, vocab=32000),
}


def tensor_shapes(shape: ModelShape) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and dimensions of every tensor."""
    head_dim = shape.hidden // shape.heads
    yield "model.embed_tokens.weight", (shape.vocab, shape.hidden)
    for layer in range(shape.layers):
        prefix = f"model.layers.{layer}."
        yield prefix + "input_layernorm.weight", (shape.hidden,)
        yield prefix + "self_attn.q_proj.weight", (shape.hidden, shape.hidden)
        yield prefix + "self_attn.k_proj.weight", (shape.kv_heads * head_dim, shape.hidden)
        yield prefix + "self_attn.v_proj.weight", (shape.kv_heads * head_dim, shape.hidden)
        yield prefix + "self_attn.o_proj.weight", (shape.hidden, shape.hidden)
        yield prefix + "post_attention_layernorm.weight", (shape.hidden,)
        yield prefix + "mlp.gate_proj.weight", (shape.ffn, shape.hidden)
        yield prefix + "mlp.up_proj.weight", (shape.ffn, shape.hidden)
        yield prefix + "mlp.down_proj.weight", (shape.hidden, shape.ffn)
    yield "model.norm.weight", (shape.hidden,)
    if not shape.tied:
        yield "lm_head.weight", (shape.vocab, shape.hidden)


def write_checkpoint(shape: ModelShape, tokenizer: Path, target: Path, seed: int = 0) -> None:
    """Write a bfloat16 checkpoint with the tokenizer of another model.

    Raises `ValueError` when the tokenizer has ids beyond the shape's vocabulary, or no plain tokens.
    """
    import torch
    from safetensors.torch import save_file

    vocabulary = _vocabulary(tokenizer)
    if max(vocabulary.values()) >= shape.vocab:
        raise ValueError(f"{tokenizer} has token ids beyond {shape.vocab}")
    source = torch.Generator().manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {}
    for name, size in tensor_shapes(shape):
        if len(size) == 1:
            tensors[name] = torch.ones(size, dtype=torch.bfloat16)
        else:
            noise = torch.empty(size).normal_(0.0, _INITIAL_STD, generator=source)
            tensors[name] = noise.to(torch.bfloat16)
    mask = torch.zeros(shape.vocab, dtype=torch.bool)
    mask[plain_tokens(vocabulary)] = True
    tensors["model.embed_tokens.weight" if shape.tied else "lm_head.weight"][~mask] = 0
    target.mkdir(parents=True, exist_ok=True)
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    _write_config(shape, tokenizer, target)


def plain_tokens(vocabulary: dict[str, int]) -> list[int]:
    """Ids of the tokens that are ASCII letters, ascending. Raises `ValueError` when there is none."""
    ids = sorted(index for token, index in vocabulary.items() if _PLAIN_TOKEN.match(token))
    if not ids:
        raise ValueError("the tokenizer has no tokens of plain letters; it must be a byte-level BPE")
    return ids


def plain_ids(checkpoint: Path) -> list[int]:
    """Ids of the plain tokens of a checkpoint's tokenizer, ascending. Raises `ValueError`, `OSError`."""
    return plain_tokens(_vocabulary(checkpoint))


def _vocabulary(folder: Path) -> dict[str, int]:
    """Token to id, special tokens left out."""
    content = msgspec.json.decode((folder / "tokenizer.json").read_bytes())
    special = {token["content"] for token in content.get("added_tokens", ())}
    vocabulary: dict[str, int] = content["model"]["vocab"]
    return {token: index for token, index in vocabulary.items() if token not in special}


def _write_config(shape: ModelShape, tokenizer: Path, target: Path) -> None:
    original: dict[str, Any] = msgspec.json.decode((tokenizer / "config.json").read_bytes())
    config: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": shape.hidden,
        "intermediate_size": shape.ffn,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "vocab_size": shape.vocab,
        "max_position_embeddings": shape.context,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": shape.tied,
        "torch_dtype": "bfloat16",
        **{name: original[name] for name in ("bos_token_id", "eos_token_id") if name in original},
    }
    (target / "config.json").write_bytes(msgspec.json.format(msgspec.json.encode(config)))
    for name in _TOKENIZER_FILES:
        if (tokenizer / name).is_file():
            shutil.copy(tokenizer / name, target / name)


def weight_bytes_per_token(folder: Path) -> int:
    """Bytes of weights that one decode step must read: everything, but of a separate embedding one row.

    Read from the safetensors headers (8 bytes of length, then JSON). Raises `ValueError` without weights.
    """
    sizes: dict[str, int] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            header = msgspec.json.decode(file.read(int.from_bytes(file.read(8), "little")))
        for name, entry in header.items():
            if name != "__metadata__":
                start, end = entry["data_offsets"]
                sizes[name] = end - start
    if not sizes:
        raise ValueError(f"there is no *.safetensors file in {folder}")
    if "lm_head.weight" in sizes:
        sizes.pop("model.embed_tokens.weight", None)
    return sum(sizes.values())


if __name__ == "__main__":
    gc.disable()  # torch is full of objects that stay: looking for cycles among them is a fifth of loading it
    asked = SHAPES[sys.argv[1]]
    if len(sys.argv) > 4:
        asked = msgspec.structs.replace(asked, context=int(sys.argv[4]))
    write_checkpoint(asked, Path(sys.argv[2]), Path(sys.argv[3]))
