"""The C++ kernels under the engine: the reference's tokens in float32, the same bits whatever the batch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from cpu_variants import ISAS, forced_kernels, set_threads
from tiny_models import FAMILIES, VOCAB_SIZE, SaveModel

from sluice_worker.config import DTypeName, EngineConfig, QuantizationName
from sluice_worker.engine import Engine
from sluice_worker.kernels.cpu.build import find_compiler
from sluice_worker.kernels.cpu.kernels import CpuKernels
from sluice_worker.kernels.interface import Kernels, LayerShape, LayerWeights
from sluice_worker.kernels.reference import ReferenceKernels
from sluice_worker.loading import loader
from sluice_worker.sampling_params import SamplingParams

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="no C++ compiler")

PROMPTS = [
    torch.randint(0, VOCAB_SIZE, (n,), generator=torch.Generator().manual_seed(n)).tolist()
    for n in (1, 13, 37, 64, 147, 147)
]


def generate(
    monkeypatch: pytest.MonkeyPatch, kernels: Kernels, folder: Path, dtype: DTypeName, **settings: Any
) -> list[tuple[list[int], list[float]]]:
    """Greedy tokens of all prompts, and their log-probabilities."""
    monkeypatch.setattr(loader, "select_kernels", lambda device, name: kernels)
    config = EngineConfig(model=str(folder), dtype=dtype, **{"block_size": 8, **settings})
    params = SamplingParams(temperature=0, max_tokens=40, logprobs=0)
    results = Engine(config).generate(PROMPTS, params)
    return [(r.token_ids, [token.logprob for token in r.logprobs]) for r in results]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("isa", ISAS)
def test_float32_greedy_tokens_are_the_references(
    monkeypatch: pytest.MonkeyPatch, save_model: SaveModel, family: str, isa: str
) -> None:
    _, folder = save_model(family)
    expected = generate(monkeypatch, ReferenceKernels(), folder, "float32")
    found = generate(monkeypatch, forced_kernels(isa), folder, "float32", max_chunk=50)
    assert [tokens for tokens, _ in found] == [tokens for tokens, _ in expected]


class UnfusedKernels(CpuKernels):
    """The same operations, each called from Python."""

    def fuse_layers(self, shape: LayerShape, layers: Sequence[LayerWeights]) -> None:
        """So that the model takes its own loop."""
        return


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_all_layers_in_one_call_give_the_bits_of_one_by_one(
    monkeypatch: pytest.MonkeyPatch, save_model: SaveModel, family: str, dtype: DTypeName
) -> None:
    _, folder = save_model(family)
    expected = generate(monkeypatch, UnfusedKernels(), folder, dtype, max_chunk=50)
    assert generate(monkeypatch, CpuKernels(), folder, dtype, max_chunk=50) == expected


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen3-tied"])
@pytest.mark.parametrize(
    ("dtype", "quantization"),
    [("float32", "none"), ("bfloat16", "none"), ("bfloat16", "int8"), ("float32", "int4")],
)
def test_log_probabilities_are_bitwise_the_same_in_any_batch(
    monkeypatch: pytest.MonkeyPatch,
    save_model: SaveModel,
    family: str,
    dtype: DTypeName,
    quantization: QuantizationName,
) -> None:
    """One at a time or together, in chunks of 7 or whole, with prefix hits, and with 1 or 2 threads."""
    _, folder = save_model(family)
    kernels, quantized = CpuKernels(), {"quantization": quantization}
    set_threads(kernels, 1)
    alone = generate(monkeypatch, kernels, folder, dtype, max_num_seqs=1, **quantized)
    set_threads(kernels, 2)
    for settings in (
        {"max_num_seqs": 16},
        {"max_num_seqs": 4, "max_chunk": 7},
        {"max_num_seqs": 16, "enable_prefix_caching": False, "block_size": 32},
    ):
        assert generate(monkeypatch, kernels, folder, dtype, **settings, **quantized) == alone
