"""`sluice-worker quantize`: what the command does once its options are read."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from sluice_worker.config import QuantizationName
from sluice_worker.kernels.select import select_kernels
from sluice_worker.loading.export import write_quantized
from sluice_worker.loading.model_folder import open_folder, resolve_model


def run_quantize(model: str, out: Path, quantization: QuantizationName, *, replace: bool) -> str:
    """Quantize `model` into the folder `out`, showing how far it is; returns one line about the result.

    Raises `ConfigError` or `ModelLoadError`.
    """
    folder = resolve_model(model)
    kernels = select_kernels(torch.device("cpu"))
    shown = sys.stderr.isatty()

    def show(done: int, total: int) -> None:
        if shown:
            end = "\n" if done == total else ""
            sys.stderr.write(f"\rquantizing {folder.name}: {done} of {total} tensors{end}")
            sys.stderr.flush()

    write_quantized(folder, out, quantization, kernels.quantize, show, replace=replace)
    before, after = folder.stored_bytes, open_folder(out, out.name).stored_bytes
    return f"{out}: {quantization}, {after / 1e6:.1f} MB of weights, before {before / 1e6:.1f} MB"
