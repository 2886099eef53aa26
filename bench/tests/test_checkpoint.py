"""Random checkpoints: the right shape, and text that shows up token by token."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sluice_bench.bandwidth import measure
from sluice_bench.checkpoint import (
    SHAPES,
    ModelShape,
    plain_tokens,
    tensor_shapes,
    weight_bytes_per_token,
    write_checkpoint,
)

TINY = ModelShape(layers=1, hidden=8, ffn=16, heads=2, kv_heads=1, vocab=20)


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    vocabulary = {"<end>": 0, "!": 1, "a": 2, "Ġdog": 3, "Ã": 4, "cat": 5}
    content = {"model": {"vocab": vocabulary}, "added_tokens": [{"content": "<end>"}]}
    (folder / "tokenizer.json").write_text(json.dumps(content))
    (folder / "config.json").write_text(json.dumps({"eos_token_id": 0, "hidden_size": 999}))
    return folder


def test_the_tinyllama_shape_has_its_number_of_parameters() -> None:
    parameters = sum(math.prod(size) for _, size in tensor_shapes(SHAPES["tinyllama-1.1b"]))
    assert parameters == 1_100_048_384


def test_a_checkpoint_has_every_tensor_and_only_plain_tokens_can_win(tmp_path: Path, tokenizer: Path) -> None:
    write_checkpoint(TINY, tokenizer, tmp_path / "model")
    tensors = load_file(tmp_path / "model" / "model.safetensors")
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == dict(tensor_shapes(TINY))
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    rows = tensors["lm_head.weight"].abs().sum(dim=1)
    assert [index for index in range(TINY.vocab) if rows[index] > 0] == [2, 3, 5]


def test_a_checkpoint_says_what_it_is(tmp_path: Path, tokenizer: Path) -> None:
    write_checkpoint(TINY, tokenizer, tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert (config["hidden_size"], config["vocab_size"], config["eos_token_id"]) == (8, 20, 0)
    assert (tmp_path / "model" / "tokenizer.json").is_file()


def test_weights_per_token_leave_out_a_separate_embedding(tmp_path: Path, tokenizer: Path) -> None:
    write_checkpoint(TINY, tokenizer, tmp_path / "model")
    total = sum(
        2 * math.prod(size) for name, size in tensor_shapes(TINY) if name != "model.embed_tokens.weight"
    )
    assert weight_bytes_per_token(tmp_path / "model") == total


def test_a_tokenizer_larger_than_the_model_is_refused(tmp_path: Path, tokenizer: Path) -> None:
    small = ModelShape(layers=1, hidden=8, ffn=16, heads=2, kv_heads=1, vocab=4)
    with pytest.raises(ValueError, match="beyond 4"):
        write_checkpoint(small, tokenizer, tmp_path / "model")


def test_a_tokenizer_without_letters_is_refused() -> None:
    with pytest.raises(ValueError, match="byte-level"):
        plain_tokens({"!": 0})


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="safetensors"):
        weight_bytes_per_token(tmp_path)


def test_the_bandwidth_probe_reads_what_it_says() -> None:
    found = measure(1_000_000, rounds=2)
    assert found.buffer_bytes <= 1_000_000
    assert found.best_gb_s >= found.median_gb_s > 0
