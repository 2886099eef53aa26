"""How a checkpoint says that its weights are quantized, and who reads them: `quantization_config`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sluice_worker.errors import UnsupportedModelError
from sluice_worker.loading import bitsandbytes, sluice_format
from sluice_worker.loading.awq import awq_reader
from sluice_worker.loading.compressed_tensors import compressed_tensors_reader
from sluice_worker.loading.gguf_file import read_gguf
from sluice_worker.loading.gguf_source import GgufSource
from sluice_worker.loading.gptq import gptq_reader
from sluice_worker.loading.hf_config import read_quantization_config
from sluice_worker.loading.model_folder import ModelFolder
from sluice_worker.loading.safetensors_source import LayerReader, SafetensorsSource
from sluice_worker.loading.tensor_source import TensorSource

_READERS: Mapping[str, Callable[[Mapping[str, Any]], LayerReader]] = {
    "awq": awq_reader,
    "gptq": gptq_reader,
    "compressed-tensors": compressed_tensors_reader,
    sluice_format.METHOD: sluice_format.sluice_reader,
    "bitsandbytes": lambda _: bitsandbytes.read_layer,
}
"""By `quant_method`."""

_LABELS = {"awq": "awq"}
"""What `GET /model` calls them, where it is not the number of bits."""


def original_bytes(folder: ModelFolder) -> int:
    """Size of the weight files, or of those that they were made from, where that is known."""
    settings = {} if folder.gguf is not None else read_quantization_config(folder)
    return int(settings.get("original_bytes", folder.stored_bytes))


def open_tensors(folder: ModelFolder) -> TensorSource:
    """The weights of a model.

    Raises `UnsupportedModelError` for a method or layout that is not read, `CheckpointError` for a file that
    cannot be.
    """
    if folder.gguf is not None:
        return GgufSource(read_gguf(folder.gguf))
    settings = read_quantization_config(folder)
    if not settings:
        return SafetensorsSource(folder)
    method = str(settings.get("quant_method", "unknown"))
    if method not in _READERS:
        raise UnsupportedModelError(
            f"{folder.config} describes weights quantized with {method}; {', '.join(_READERS)} and GGUF "
            "files are supported. Use one of these, or the unquantized model with --quantization int4."
        )
    return SafetensorsSource(folder, _READERS[method](settings), _LABELS.get(method))
