"""From a model's name to a model ready to compute: one function, in the order things can fail.

Name, config, device, dtype, memory, weights: each is checked before the next, so that an impossible start
ends with its own sentence and not with a half-loaded model.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
import torch

from sluice_worker.config import EngineConfig, ModelConfig, QuantizationName
from sluice_worker.device import free_memory_bytes, require_memory, resolve_device, resolve_dtype
from sluice_worker.kernels.interface import Kernels, StoredForm
from sluice_worker.kernels.select import select_kernels
from sluice_worker.kv_cache import bytes_per_token, count_blocks
from sluice_worker.loading.checkpoint import Checkpoint
from sluice_worker.loading.hf_config import read_model_config
from sluice_worker.loading.model_folder import ModelFolder, resolve_model
from sluice_worker.loading.packed_cache import PackedCache, packed_key
from sluice_worker.loading.packed_file import WeightSummary
from sluice_worker.loading.pages import freed_at_once
from sluice_worker.loading.stored_quantization import open_tensors, original_bytes
from sluice_worker.loading.weights import FreshWeights, KeptWeights, Weights
from sluice_worker.models.registry import Model, find_builder

logger = logging.getLogger(__name__)


class LoadedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model on its device, and the sizes that follow from it."""

    folder: ModelFolder
    config: ModelConfig
    model: Model
    kernels: Kernels
    device: torch.device
    dtype: torch.dtype
    cache_dtype: torch.dtype
    num_parameters: int
    weight_bytes: int
    quantization: str
    """Of most linear layers."""
    block_size: int
    num_blocks: int
    max_model_len: int
    """Prompt plus output: the context, or less if asked, or if all KV blocks hold less."""


class WeightSettings(NamedTuple):
    """Whose weights, and what becomes of them."""

    folder: ModelFolder
    dtype: torch.dtype
    device: torch.device
    quantization: QuantizationName
    tied: bool
    """Whether the output layer is the embedding table."""


def load_model(config: EngineConfig, cache: PackedCache | None = None) -> LoadedModel:
    """Load the model `config.model`; `cache` instead of the one that it names.

    Raises `ModelLoadError` or `ConfigError`, each saying what to do.
    """
    folder = resolve_model(config.model)
    model_config = read_model_config(folder)
    builder = find_builder(model_config.architecture)
    device = resolve_device(config.device)
    dtype = resolve_dtype(config.dtype, model_config.dtype, original_bytes(folder), device)
    kernels = select_kernels(device, config.kernels)
    context = min(config.max_model_len or 2**62, model_config.max_position_embeddings)
    free_bytes = free_memory_bytes(device)

    def build(weights: Weights) -> Model:
        return builder(model_config, kernels, weights, context)

    settings = WeightSettings(folder, dtype, device, config.quantization, model_config.tie_word_embeddings)
    with freed_at_once():
        model, summary = _load_weights(settings, kernels, cache or _packed_cache(config), free_bytes, build)
    block_size = config.block_size or (16 if device.type == "cuda" else 32)
    cache_dtype = torch.int8 if config.kv_cache_dtype == "int8" else dtype
    num_blocks = count_blocks(
        config,
        block_size=block_size,
        bytes_per_token=bytes_per_token(model_config, cache_dtype),
        max_model_len=context,
        free_bytes=free_bytes - summary.weight_bytes,
    )
    logger.info(
        "model %s: %.1f M parameters, %.1f MB of weights (linear layers: %s), computing in %s, "
        "%d KV blocks of %d tokens",
        folder.name,
        summary.num_parameters / 1e6,
        summary.weight_bytes / 1e6,
        "not quantized" if summary.quantization == "none" else summary.quantization,
        dtype,
        num_blocks,
        block_size,
    )
    return LoadedModel(
        folder=folder,
        config=model_config,
        model=model,
        kernels=kernels,
        device=device,
        dtype=dtype,
        cache_dtype=cache_dtype,
        num_parameters=summary.num_parameters,
        weight_bytes=summary.weight_bytes,
        quantization=summary.quantization,
        block_size=block_size,
        num_blocks=num_blocks,
        max_model_len=min(context, num_blocks * block_size),
    )


def _packed_cache(config: EngineConfig) -> PackedCache | None:
    return None if config.packed_cache is None else PackedCache(Path(config.packed_cache).expanduser())


def _load_weights(
    settings: WeightSettings,
    kernels: Kernels,
    cache: PackedCache | None,
    free_bytes: int,
    build: Callable[[Weights], Model],
) -> tuple[Model, WeightSummary]:
    """Build the model on weights kept by an earlier start if there are any, else on the checkpoint's."""
    if cache is None or not isinstance(kernels, StoredForm):
        model, summary, _ = _pack_weights(settings, kernels, free_bytes, build)
        return model, summary
    key = packed_key(settings.folder, kernels.name, str(settings.dtype), settings.quantization)
    kept = cache.find(key)
    if kept is not None:
        require_memory(kept.summary.weight_bytes, free_bytes, settings.device)
        return build(KeptWeights(kept, kernels, settings.dtype, settings.device)), kept.summary
    model, summary, weights = _pack_weights(settings, kernels, free_bytes, build)
    if cache.wants(summary.weight_bytes):
        packed = weights.packed(kernels, summary)
        threading.Thread(target=cache.keep, args=(key, packed), name="keep-weights", daemon=True).start()
    return model, summary


def _pack_weights(
    settings: WeightSettings, kernels: Kernels, free_bytes: int, build: Callable[[Weights], Model]
) -> tuple[Model, WeightSummary, FreshWeights]:
    folder, dtype, device, quantization, tied = settings
    ignored = ("lm_head.weight",) if tied else ()
    source = open_tensors(folder)
    checkpoint = Checkpoint(source, dtype, device, ignored, quantization, kernels.quantize)
    with checkpoint:
        require_memory(checkpoint.expected_bytes, free_bytes, device)
        weights = FreshWeights(checkpoint, kernels)
        model = build(weights)
        checkpoint.check_all_taken()
    summary = WeightSummary(
        num_parameters=checkpoint.num_parameters,
        weight_bytes=checkpoint.weight_bytes,
        quantization=checkpoint.quantization,
    )
    return model, summary, weights
