"""Which class builds the model of an architecture named in config.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from torch import Tensor

from sluice_worker.batch import Batch
from sluice_worker.config import ModelConfig
from sluice_worker.errors import UnsupportedModelError
from sluice_worker.kernels.interface import Kernels
from sluice_worker.kv_cache import KVCache
from sluice_worker.loading.weights import Weights
from sluice_worker.models.decoder import Decoder


class Model(Protocol):
    """What the runner needs of a model."""

    def forward(self, batch: Batch, cache: KVCache) -> Tensor:
        """Logits [S, vocab] of the rows to sample; the step's keys and values are in `cache` afterwards."""

    def hidden(self, batch: Batch, cache: KVCache, rows: Tensor) -> Tensor:
        """As `forward`, but ends before the output layer, with what that reads of `rows`: [R, hidden]."""

    def logits(self, hidden: Tensor) -> Tensor:
        """The output layer: [rows, vocab] for [rows, hidden]."""


ModelBuilder = Callable[[ModelConfig, Kernels, Weights, int], Model]
"""Takes the shape, the kernels, the weights and the number of positions that will be used."""

BUILDERS: Mapping[str, ModelBuilder] = {
    "LlamaForCausalLM": Decoder,
    "MistralForCausalLM": Decoder,
    "Qwen2ForCausalLM": Decoder,
    "Qwen3ForCausalLM": Decoder,
}
"""By the name in `architectures` of config.json. TinyLlama and SmolLM2 are `LlamaForCausalLM`."""


def find_builder(architecture: str) -> ModelBuilder:
    """The builder of `architecture`. Raises `UnsupportedModelError` naming those there are."""
    builder = BUILDERS.get(architecture)
    if builder is None:
        raise UnsupportedModelError(
            f"The architecture {architecture} is not supported; supported are {', '.join(BUILDERS)}."
        )
    return builder
