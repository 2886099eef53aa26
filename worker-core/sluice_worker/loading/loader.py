"""From a model's name to a model ready to compute: one function, in the order things can fail.

Name, config, device, dtype, memory, weights: each is checked before the next, so that an impossible start
ends with its own sentence and not with a half-loaded model.
"""

from __future__ import annotations

import logging

import msgspec
import torch

from sluice_worker.config import EngineConfig, ModelConfig
from sluice_worker.device import free_memory_bytes, require_memory, resolve_device, resolve_dtype
from sluice_worker.kernels.interface import Kernels
from sluice_worker.kernels.select import select_kernels
from sluice_worker.kv_cache import bytes_per_token, count_blocks
from sluice_worker.loading.checkpoint import Checkpoint
from sluice_worker.loading.hf_config import read_model_config
from sluice_worker.loading.model_folder import ModelFolder, resolve_model
from sluice_worker.loading.pages import freed_at_once
from sluice_worker.loading.stored_quantization import open_tensors, original_bytes
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


def load_model(config: EngineConfig) -> LoadedModel:
    """Load the model `config.model`. Raises `ModelLoadError` or `ConfigError`, each saying what to do."""
    folder = resolve_model(config.model)
    model_config = read_model_config(folder)
    builder = find_builder(model_config.architecture)
    device = resolve_device(config.device)
    dtype = resolve_dtype(config.dtype, model_config.dtype, original_bytes(folder), device)
    kernels = select_kernels(device, config.kernels)
    context = min(config.max_model_len or 2**62, model_config.max_position_embeddings)
    ignored = ("lm_head.weight",) if model_config.tie_word_embeddings else ()
    source = open_tensors(folder)
    checkpoint = Checkpoint(source, dtype, device, ignored, config.quantization, kernels.quantize)
    with freed_at_once(), checkpoint:
        free_bytes = free_memory_bytes(device)
        require_memory(checkpoint.expected_bytes, free_bytes, device)
        model = builder(model_config, kernels, checkpoint, context)
        checkpoint.check_all_taken()
    block_size = config.block_size or (16 if device.type == "cuda" else 32)
    cache_dtype = torch.int8 if config.kv_cache_dtype == "int8" else dtype
    num_blocks = count_blocks(
        config,
        block_size=block_size,
        bytes_per_token=bytes_per_token(model_config, cache_dtype),
        max_model_len=context,
        free_bytes=free_bytes - checkpoint.weight_bytes,
    )
    logger.info(
        "model %s: %.1f M parameters, %.1f MB of weights (linear layers: %s), computing in %s, "
        "%d KV blocks of %d tokens",
        folder.name,
        checkpoint.num_parameters / 1e6,
        checkpoint.weight_bytes / 1e6,
        "not quantized" if checkpoint.quantization == "none" else checkpoint.quantization,
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
        num_parameters=checkpoint.num_parameters,
        weight_bytes=checkpoint.weight_bytes,
        quantization=checkpoint.quantization,
        block_size=block_size,
        num_blocks=num_blocks,
        max_model_len=min(context, num_blocks * block_size),
    )
