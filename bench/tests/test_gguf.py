"""GGUF files: read back by hand, and against the rule for the rows of query and key matrices."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sluice_bench.checkpoint import ModelShape, write_checkpoint
from sluice_bench.gguf import gguf_name, paired_rows, write_gguf

TINY = ModelShape(layers=1, hidden=12, ffn=20, heads=2, kv_heads=1, vocab=20)
SIZES = {0: 4, 30: 2}
DTYPES = {0: torch.float32, 30: torch.bfloat16}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    tokenizer = tmp_path / "tokenizer"
    tokenizer.mkdir()
    vocabulary = {"<end>": 0, "!": 1, "a": 2, "Ġdog": 3, "b": 4, "ab": 5}
    content = {
        "model": {"vocab": vocabulary, "merges": [["a", "b"]]},
        "added_tokens": [{"content": "<end>"}],
    }
    (tokenizer / "tokenizer.json").write_text(json.dumps(content))
    (tokenizer / "config.json").write_text(json.dumps({"eos_token_id": 0}))
    write_checkpoint(TINY, tokenizer, tmp_path / "model")
    return tmp_path / "model"


class Reader:
    """A second, independent reading of the format."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, code: str) -> Any:
        values = struct.unpack_from("<" + code, self.data, self.at)
        self.at += struct.calcsize("<" + code)
        return values[0]

    def text(self) -> str:
        length = self.take("Q")
        self.at += length
        return self.data[self.at - length : self.at].decode()

    def value(self, kind: int) -> Any:
        if kind == 8:
            return self.text()
        if kind == 9:
            inner, count = self.take("I"), self.take("Q")
            return [self.value(inner) for _ in range(count)]
        return self.take({4: "I", 5: "i", 6: "f", 7: "?"}[kind])

    def whole(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        assert (self.data[:4], struct.unpack_from("<I", self.data, 4)) == (b"GGUF", (3,))
        self.at = 8
        tensors, pairs = self.take("Q"), self.take("Q")
        metadata = {}
        for _ in range(pairs):
            key = self.text()
            metadata[key] = self.value(self.take("I"))
        found = []
        for _ in range(tensors):
            name, rank = self.text(), self.take("I")
            size = [self.take("Q") for _ in range(rank)]
            found.append((name, size[::-1], self.take("I"), self.take("Q")))
        start = self.at + -self.at % 32
        read = {}
        for name, size, kind, offset in found:
            assert offset % 32 == 0
            count = torch.Size(size).numel()
            data = bytearray(self.data[start + offset : start + offset + count * SIZES[kind]])
            read[name] = torch.frombuffer(data, dtype=DTYPES[kind]).reshape(size)
        return metadata, read


def test_a_checkpoint_is_read_back_as_it_was(tmp_path: Path, checkpoint: Path) -> None:
    write_gguf(checkpoint, tmp_path / "model.gguf")
    _, read = Reader((tmp_path / "model.gguf").read_bytes()).whole()
    written = load_file(checkpoint / "model.safetensors")
    assert set(read) == {gguf_name(name) for name in written}
    for name, tensor in written.items():
        found = read[gguf_name(name)]
        if "q_proj" in name or "k_proj" in name:
            heads = TINY.heads if "q_proj" in name else TINY.kv_heads
            halves = tensor.reshape(heads, 2, -1, TINY.hidden)
            tensor = halves.transpose(1, 2).reshape(tensor.shape)
        assert torch.equal(found.float(), tensor.float()), name
        assert found.dtype == (torch.float32 if tensor.dim() == 1 else torch.bfloat16)


def test_shape_and_tokens_are_told(tmp_path: Path, checkpoint: Path) -> None:
    write_gguf(checkpoint, tmp_path / "model.gguf")
    metadata, _ = Reader((tmp_path / "model.gguf").read_bytes()).whole()
    assert metadata["general.architecture"] == "llama"
    assert metadata["llama.attention.head_count_kv"] == 1
    assert metadata["llama.rope.dimension_count"] == 6
    assert metadata["llama.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-5)
    assert len(metadata["tokenizer.ggml.tokens"]) == len(metadata["tokenizer.ggml.token_type"]) == TINY.vocab
    assert metadata["tokenizer.ggml.tokens"][2:6] == ["a", "Ġdog", "b", "ab"]
    assert metadata["tokenizer.ggml.token_type"][:7] == [3, 1, 1, 1, 1, 1, 5]
    assert metadata["tokenizer.ggml.merges"] == ["a b"]


def test_the_halves_of_each_head_are_interleaved() -> None:
    rows = [bytes([index]) for index in range(8)]
    assert b"".join(paired_rows(rows, 2)) == bytes([0, 2, 1, 3, 4, 6, 5, 7])


def test_another_architecture_is_refused(tmp_path: Path, checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text()) | {"model_type": "gpt2"}
    (checkpoint / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="only llama"):
        write_gguf(checkpoint, tmp_path / "model.gguf")
    with pytest.raises(ValueError, match="no place"):
        gguf_name("model.layers.0.self_attn.q_norm.weight")
