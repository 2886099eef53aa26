"""A checkpoint as GGUF, so that llama.cpp runs the weights that everyone else runs.

Writes bfloat16 Llama checkpoints with a byte-level BPE and nothing else; llama.cpp's own `llama-quantize`
makes the other formats of it. llama.cpp pairs neighbouring rows for RoPE where Hugging Face pairs
row i with row i + head_dim / 2, so the rows of the query and key matrices change places on the way.

Source of the format: ggml's docs/gguf.md (version 3); of the names: llama.cpp's src/llama-arch.cpp.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

_MAGIC, _VERSION, _ALIGNMENT = b"GGUF", 3, 32
_F32, _BF16 = 0, 30
"""Types of tensors."""
_FILE_IS_BF16 = 32
_UINT32, _INT32, _FLOAT32, _BOOL, _STRING, _ARRAY = 4, 5, 6, 7, 8, 9
"""Types of metadata."""
_NORMAL, _CONTROL, _UNUSED = 1, 3, 5
"""Types of tokens."""

_OUTER = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_INNER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


class _Tensor(msgspec.Struct, frozen=True):
    """A tensor in a safetensors file."""

    source: str
    """Its name there."""
    size: tuple[int, ...]
    start: int
    """Of its bytes in the file."""
    n_bytes: int

    @property
    def is_vector(self) -> bool:
        """Vectors are stored as float32."""
        return len(self.size) == 1


def write_gguf(checkpoint: Path, target: Path) -> None:
    """Write the folder `checkpoint` as one file. Raises `ValueError` when it is of another kind."""
    config: dict[str, Any] = msgspec.json.decode((checkpoint / "config.json").read_bytes())
    tokenizer: dict[str, Any] = msgspec.json.decode((checkpoint / "tokenizer.json").read_bytes())
    if config.get("model_type") != "llama":
        raise ValueError(f"{checkpoint} is a {config.get('model_type')} model; only llama is written as GGUF")
    weights = checkpoint / "model.safetensors"
    tensors = _tensors(weights)
    metadata = [*_model_metadata(config), *_tokenizer_metadata(config, tokenizer), *_template(checkpoint)]
    with weights.open("rb") as source, target.open("wb") as file:
        file.write(_MAGIC + struct.pack("<IQQ", _VERSION, len(tensors), len(metadata)))
        file.write(b"".join(metadata))
        _write_directory(file, tensors)
        for tensor in tensors:
            _pad(file)
            source.seek(tensor.start)
            file.write(_converted(tensor, source.read(tensor.n_bytes), config))


def gguf_name(name: str) -> str:
    """llama.cpp's name of a tensor. Raises `ValueError` for one that it does not know."""
    if name in _OUTER:
        return _OUTER[name]
    layer, _, rest = name.removeprefix("model.layers.").partition(".")
    inner = _INNER.get(rest.removesuffix(".weight"))
    if inner is None:
        raise ValueError(f"{name} has no place in a GGUF file of a llama model")
    return f"blk.{layer}.{inner}.weight"


def paired_rows(rows: Sequence[bytes], heads: int) -> Iterator[bytes]:
    """Rows of a query or key matrix with the two halves of each head interleaved."""
    size = len(rows) // heads
    for head in range(heads):
        for index in range(size // 2):
            yield rows[head * size + index]
            yield rows[head * size + size // 2 + index]


def _tensors(weights: Path) -> list[_Tensor]:
    with weights.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header: dict[str, Any] = msgspec.json.decode(file.read(length))
    found = []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] != "BF16":
            raise ValueError(f"{name} is {entry['dtype']}; only bfloat16 is written as GGUF")
        start, end = entry["data_offsets"]
        found.append(_Tensor(name, tuple(entry["shape"]), 8 + length + start, end - start))
    return found


def _write_directory(file: BinaryIO, tensors: Sequence[_Tensor]) -> None:
    """Name, dimensions (fastest first), type and offset of each tensor."""
    offset = 0
    for tensor in tensors:
        kind, n_bytes = (_F32, tensor.n_bytes * 2) if tensor.is_vector else (_BF16, tensor.n_bytes)
        size = tensor.size[::-1]
        file.write(_string(gguf_name(tensor.source)))
        file.write(struct.pack(f"<I{len(size)}QIQ", len(size), *size, kind, offset))
        offset += n_bytes + -n_bytes % _ALIGNMENT


def _pad(file: BinaryIO) -> None:
    file.write(bytes(-file.tell() % _ALIGNMENT))


def _converted(tensor: _Tensor, data: bytes, config: Mapping[str, Any]) -> bytes:
    if tensor.is_vector:  # a bfloat16 is the upper half of a float32
        return b"".join(b"\0\0" + data[at : at + 2] for at in range(0, len(data), 2))
    for name, heads in (("q_proj", "num_attention_heads"), ("k_proj", "num_key_value_heads")):
        if name in tensor.source:
            width = len(data) // tensor.size[0]
            rows = [data[at : at + width] for at in range(0, len(data), width)]
            return b"".join(paired_rows(rows, config[heads]))
    return data


def _model_metadata(config: Mapping[str, Any]) -> list[bytes]:
    heads = config["num_attention_heads"]
    integers = {
        "block_count": config["num_hidden_layers"],
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "feed_forward_length": config["intermediate_size"],
        "attention.head_count": heads,
        "attention.head_count_kv": config["num_key_value_heads"],
        "rope.dimension_count": config.get("head_dim") or config["hidden_size"] // heads,
        "vocab_size": config["vocab_size"],
    }
    floats = {
        "attention.layer_norm_rms_epsilon": config["rms_norm_eps"],
        "rope.freq_base": config["rope_theta"],
    }
    return [
        _text("general.architecture", "llama"),
        _text("general.name", "random"),
        _integer("general.file_type", _FILE_IS_BF16),
        *(_integer(f"llama.{name}", value) for name, value in integers.items()),
        *(_pair(f"llama.{name}", _FLOAT32, struct.pack("<f", value)) for name, value in floats.items()),
    ]


def _tokenizer_metadata(config: Mapping[str, Any], tokenizer: Mapping[str, Any]) -> list[bytes]:
    """Ids without a token get an unused one: llama.cpp wants as many tokens as the matrix has rows."""
    special = {token["content"] for token in tokenizer.get("added_tokens", ())}
    tokens = [f"<unused{index}>" for index in range(config["vocab_size"])]
    kinds = [_UNUSED] * len(tokens)
    for token, index in tokenizer["model"]["vocab"].items():
        tokens[index], kinds[index] = token, _CONTROL if token in special else _NORMAL
    merges = [
        merge if isinstance(merge, str) else " ".join(merge) for merge in tokenizer["model"].get("merges", ())
    ]
    kinds_array = struct.pack("<IQ", _INT32, len(kinds)) + struct.pack(f"<{len(kinds)}i", *kinds)
    end = config.get("eos_token_id")
    return [
        _text("tokenizer.ggml.model", "gpt2"),
        _text("tokenizer.ggml.pre", "gpt-2"),
        _texts("tokenizer.ggml.tokens", tokens),
        _pair("tokenizer.ggml.token_type", _ARRAY, kinds_array),
        _texts("tokenizer.ggml.merges", merges),
        *([] if end is None else [_integer("tokenizer.ggml.eos_token_id", end)]),
        _pair("tokenizer.ggml.add_bos_token", _BOOL, b"\0"),
    ]


def _template(checkpoint: Path) -> list[bytes]:
    """The chat template, where the checkpoint has one."""
    settings = checkpoint / "tokenizer_config.json"
    if not settings.is_file():
        return []
    template = msgspec.json.decode(settings.read_bytes()).get("chat_template")
    return [_text("tokenizer.chat_template", template)] if isinstance(template, str) else []


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _pair(key: str, kind: int, value: bytes) -> bytes:
    return _string(key) + struct.pack("<I", kind) + value


def _text(key: str, value: str) -> bytes:
    return _pair(key, _STRING, _string(value))


def _integer(key: str, value: int) -> bytes:
    return _pair(key, _UINT32, struct.pack("<I", value))


def _texts(key: str, values: Sequence[str]) -> bytes:
    packed = b"".join(_string(value) for value in values)
    return _pair(key, _ARRAY, struct.pack("<IQ", _STRING, len(values)) + packed)
