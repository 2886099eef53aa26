"""Where the model runs and in which numbers: device, dtype, threads, free memory."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import torch

from sluice_worker.config import DeviceName, DTypeName
from sluice_worker.errors import ConfigError, NotEnoughMemoryError, UnsupportedModelError

logger = logging.getLogger(__name__)

SMALL_MODEL_BYTES = 32 * 2**20
"""Weight files up to this size hold a small model."""

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def resolve_device(name: DeviceName) -> torch.device:
    """The torch device for a setting. Raises `ConfigError` when CUDA is asked for and absent."""
    if name == "mps":
        logger.warning("device mps is not supported; running on the CPU instead.")
        return torch.device("cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "device is cuda, but this torch finds no CUDA device. Use device cpu or auto, or install a torch "
            "build with CUDA and a driver."
        )
    if name == "cuda" or (name == "auto" and torch.cuda.is_available()):
        return torch.device("cuda")
    return torch.device("cpu")


def resolve_dtype(
    name: DTypeName, checkpoint_dtype: str, stored_bytes: int, device: torch.device
) -> torch.dtype:
    """The dtype of weights and activations. `auto` follows the checkpoint, with two exceptions.

    float16 becomes bfloat16. On CPU a model whose files (`stored_bytes`) are small becomes float32: it
    stays in the processor's cache, where float32 is faster, and its tokens do not depend on what else is in
    the batch. Raises `UnsupportedModelError` when the checkpoint has another type and `auto` leaves the
    choice to it.
    """
    if name != "auto":
        return _DTYPES[name]
    wanted = checkpoint_dtype.removeprefix("torch.")
    if wanted == "float16":
        logger.info("dtype: the checkpoint is float16; computing in bfloat16.")
        wanted = "bfloat16"
    if wanted not in _DTYPES:
        raise UnsupportedModelError(
            f"config.json says the weights are {checkpoint_dtype}; supported are float32, float16 and "
            "bfloat16. Choose dtype float32 or bfloat16 to convert."
        )
    if device.type == "cpu" and stored_bytes <= SMALL_MODEL_BYTES:
        return torch.float32
    return _DTYPES[wanted]


def free_memory_bytes(device: torch.device) -> int:
    """Memory that could still be taken on `device`, in bytes; on CPU within the container's limit."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return min(_available_ram(), _cgroup_headroom())


def require_memory(needed: int, free: int, device: torch.device) -> None:
    """Raise `NotEnoughMemoryError` unless `needed` bytes of weights fit into `free`."""
    if needed > free:
        raise NotEnoughMemoryError(
            f"The weights need {needed / 2**30:.1f} GiB, but {device.type} has {free / 2**30:.1f} GiB free. "
            "Use dtype bfloat16, a smaller model, or a machine with more memory."
        )


def set_threads(threads: int | None) -> None:
    """Process-wide torch settings for inference on CPU. Call from the thread that will compute."""
    if threads is not None:
        torch.set_num_threads(threads)
    torch.set_flush_denormal(True)


def _available_ram() -> int:
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _cgroup_headroom() -> int:
    """Bytes below the container's memory limit (cgroup v2); a very large number without a limit."""
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        used = Path("/sys/fs/cgroup/memory.current").read_text().strip()
        return 2**62 if limit == "max" else max(0, int(limit) - int(used))
    except (OSError, ValueError):
        return 2**62
