"""Models in the forms that engines want: random checkpoints and GGUF files, each made once and kept.

A file is made under another name first, so that half of one is never taken for a whole one.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from sluice_bench.gguf import write_gguf
from sluice_bench.processes import ServerFailed

MODELS_FOLDER = Path.home() / ".cache" / "sluice-bench" / "models"
"""Where they are kept unless somebody says otherwise."""

BF16 = "bf16"
"""The GGUF format that a checkpoint is written in; llama.cpp's own tool makes the others of it."""


def kept_checkpoint(folder: Path, shape: str, tokenizer: Path, context: int) -> Path:
    """The random checkpoint of a shape (`checkpoint.SHAPES`) below `folder`. Raises `ServerFailed`."""
    checkpoint = folder / shape
    if not checkpoint.exists():
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = folder / f"{shape}.part"
        module = [sys.executable, "-m", "sluice_bench.checkpoint", shape, str(tokenizer)]
        _make([*module, str(unfinished), str(context)])
        unfinished.rename(checkpoint)
    return checkpoint


def kept_gguf(checkpoint: Path, folder: Path, kind: str, quantize: Path) -> Path:
    """A checkpoint as a GGUF file of `kind` below `folder`; `quantize` is llama.cpp's tool.

    Raises `ServerFailed`.
    """
    target = folder / f"{checkpoint.name}-{kind}.gguf"
    if target.exists():
        return target
    unfinished = target.with_suffix(".part")
    if kind == BF16:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_gguf(checkpoint, unfinished)
        except (OSError, ValueError) as error:
            raise ServerFailed(f"{target} cannot be written: {error}") from error
    else:
        source = kept_gguf(checkpoint, folder, BF16, quantize)
        _make([str(quantize), str(source), str(unfinished), kind.upper()])
    unfinished.rename(target)
    return target


def _make(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ServerFailed(f"{command[0]} failed:\n{(done.stderr or done.stdout)[-500:]}")
