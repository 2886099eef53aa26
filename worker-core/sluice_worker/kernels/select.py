"""Which kernels serve on a device."""

from __future__ import annotations

import logging
import time

import torch

from sluice_worker.config import KernelsName
from sluice_worker.errors import ConfigError
from sluice_worker.kernels.interface import Kernels
from sluice_worker.kernels.reference import ReferenceKernels

logger = logging.getLogger(__name__)


def select_kernels(device: torch.device, name: KernelsName = "auto") -> Kernels:
    """The fastest backend present for `device`, or the one called `name`.

    The C++ kernels use as many threads as torch does at this moment; they are compiled now if that has not
    been done. Raises `ConfigError` when the backend asked for is not to be had.
    """
    if name == "cpu" and device.type != "cpu":
        raise ConfigError(
            f"kernels is cpu, but the device is {device.type}. Use kernels auto, or device cpu."
        )
    kernels: Kernels | None = None
    if device.type == "cpu" and name != "reference":
        kernels = _cpu_kernels(required=name == "cpu")
    if kernels is None:
        kernels = ReferenceKernels()
        logger.info("kernels: %s (plain torch) on %s", kernels.name, device)
    return kernels


def _cpu_kernels(required: bool) -> Kernels | None:
    """`None` when they cannot be compiled here, which is said."""
    from sluice_worker.kernels.cpu.build import BuildError
    from sluice_worker.kernels.cpu.kernels import CpuKernels
    from sluice_worker.kernels.cpu.library import library

    began = time.monotonic()
    try:
        lib = library()
    except BuildError as error:
        if required:
            raise ConfigError(str(error)) from error
        logger.warning("kernels: plain torch, several times slower than our own: %s", error)
        return None
    lib.sluice_set_threads(torch.get_num_threads())
    logger.info(
        "kernels: cpu (C++, %s) with %d threads, ready in %.1f s",
        lib.sluice_isa().decode(),
        torch.get_num_threads(),
        time.monotonic() - began,
    )
    return CpuKernels()
