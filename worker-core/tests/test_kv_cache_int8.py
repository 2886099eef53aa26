"""The int8 KV cache under the engine: its size, its invariance, and what it costs on the bundled model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_models import SaveModel
from tokenizers import Tokenizer

from sluice_worker.config import EngineConfig, KVCacheDTypeName
from sluice_worker.engine import Engine
from sluice_worker.kernels.cpu.build import find_compiler
from sluice_worker.loading.loader import load_model
from sluice_worker.loading.model_folder import resolve_model
from sluice_worker.sampling_params import SamplingParams

needs_compiler = pytest.mark.skipif(find_compiler() is None, reason="no C++ compiler")

QUESTIONS = [
    "What is 17 plus 25?",
    "What is the capital of France?",
    "Count from 1 to 12.",
    "Write a short story about a lighthouse and the woman who keeps it.",
    "Repeat after me: the quick brown fox jumps over the lazy dog.",
    "List three fruits and three animals, and say something about each of them.",
]


def generate(prompts: list[list[int]], folder: Path, max_tokens: int, **settings: Any) -> list[list[int]]:
    """Greedy tokens of each prompt."""
    engine = Engine(EngineConfig(model=str(folder), **settings))
    params = SamplingParams(temperature=0, max_tokens=max_tokens)
    return [generation.token_ids for generation in engine.generate(prompts, params)]


@pytest.mark.parametrize(
    ("kv_cache_dtype", "dtype", "expected"),
    [
        ("auto", "float32", 512),
        ("auto", "bfloat16", 256),
        ("int8", "float32", 160),
        ("int8", "bfloat16", 160),
    ],
)
def test_a_token_takes_what_is_reported(
    save_model: SaveModel, kv_cache_dtype: KVCacheDTypeName, dtype: Any, expected: int
) -> None:
    """2 layers, 2 kv heads of 16, keys and values; a scale of 4 bytes beside 16 codes."""
    _, folder = save_model("llama")
    budget = 20 * 16 * expected + 5
    config = EngineConfig(
        model=str(folder),
        dtype=dtype,
        kv_cache_dtype=kv_cache_dtype,
        kv_cache_bytes=budget,
        block_size=16,
        max_model_len=512,
    )
    assert Engine(config).model_info().kv_bytes_per_token == expected
    assert load_model(config).num_blocks == 20


@needs_compiler
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_tokens_do_not_depend_on_batch_chunks_and_prefix_hits(save_model: SaveModel, dtype: Any) -> None:
    _, folder = save_model("llama")
    prompts = [[(7 * i + n) % 90 for i in range(n)] for n in (1, 13, 37, 150, 150)]
    settings = {"dtype": dtype, "kv_cache_dtype": "int8", "block_size": 8}
    alone = generate(prompts, folder, 30, **settings, max_num_seqs=1)
    assert generate(prompts, folder, 30, **settings) == alone
    assert generate(prompts, folder, 30, **settings, max_chunk=7) == alone


@pytest.mark.parametrize("kernels", [pytest.param("cpu", marks=needs_compiler), "reference"])
def test_the_bundled_model_answers_the_same(kernels: Any) -> None:
    """Of the first 24 greedy tokens of six answers at least nine in ten are those of the float32 cache."""
    folder = resolve_model("sluice-tiny").path
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    prompts = [
        tokenizer.encode(f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n").ids
        for text in QUESTIONS
    ]
    exact = generate(prompts, folder, 24, kernels=kernels)
    codes = generate(prompts, folder, 24, kernels=kernels, kv_cache_dtype="int8")
    agreed = sum(a == b for x, y in zip(exact, codes, strict=True) for a, b in zip(x, y, strict=False))
    assert agreed >= 0.9 * sum(map(len, exact))
