"""Write a model quantized ahead: a folder that loads to the very weights that quantizing at load gives.

Tensor by tensor, so that the memory needed is that of one file of the result. The folder appears whole or not
at all.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
from safetensors.torch import save_file
from torch import Tensor

from sluice_worker.config import QuantizationName
from sluice_worker.errors import ConfigError
from sluice_worker.loading import sluice_format
from sluice_worker.loading.hf_config import read_model_config, read_quantization_config
from sluice_worker.loading.model_folder import ModelFolder
from sluice_worker.loading.safetensors_source import SafetensorsSource
from sluice_worker.loading.tensor_source import EMBEDDING, HEAD
from sluice_worker.quant.recipe import Quantizer, quantize
from sluice_worker.staging.manifest import MANIFEST

FILE_BYTES = 2**30
"""A file of the result is closed when it holds this much."""

_COPIED = ("*.json", "*.jinja", "*.md", "*.txt", "*.model", "LICENSE*")
_NOT_COPIED = ("config.json", "model.safetensors.index.json", MANIFEST)

Progress = Callable[[int, int], None]
"""Told how many tensors of how many are done."""


def write_quantized(
    folder: ModelFolder,
    out: Path,
    quantization: QuantizationName,
    quantizer: Quantizer,
    progress: Progress,
    *,
    replace: bool = False,
) -> None:
    """Quantize the model in `folder` into the new folder `out`.

    Raises `ConfigError` when `out` exists and is not to be replaced, or when the model is quantized already;
    `ModelLoadError` when it cannot be read.
    """
    refuse_quantized(folder)
    tied = read_model_config(folder).tie_word_embeddings
    with whole_folder(out, replace) as partial:
        _write_weights(folder, partial, tied, quantization, quantizer, progress)
        _write_rest(folder, partial, quantization)


def refuse_quantized(folder: ModelFolder) -> None:
    """Raises `ConfigError` for a model whose weights are no floats any more."""
    if folder.gguf is not None or read_quantization_config(folder):
        raise ConfigError(f"{folder.path} is quantized already, and is served as it is.")


@contextmanager
def whole_folder(out: Path, replace: bool) -> Iterator[Path]:
    """A folder to fill, which becomes `out` at the end, or goes when that fails.

    Raises `ConfigError` when `out` exists and is not to be replaced.
    """
    if out.exists() and not replace:
        raise ConfigError(f"{out} exists. Choose another folder, or replace it with --force.")
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        yield partial
        partial.chmod(0o755)
        _put_in_place(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_weights(
    folder: ModelFolder,
    out: Path,
    tied: bool,
    quantization: QuantizationName,
    quantizer: Quantizer,
    progress: Progress,
) -> None:
    files: list[Path] = []
    held: dict[str, Tensor] = {}

    def write_held() -> None:
        files.append(out / f"model-{len(files) + 1:05}.safetensors")
        save_file({name: tensor.contiguous() for name, tensor in held.items()}, files[-1])
        held.clear()

    with ExitStack() as stack:
        source = SafetensorsSource(folder)
        stack.callback(source.close)
        names = [name for name in source.stored if not (tied and name == HEAD)]
        for done, name in enumerate(names):
            progress(done, len(names))
            held.update(_converted(source, name, tied, quantization, quantizer))
            if sum(tensor.nbytes for tensor in held.values()) >= FILE_BYTES:
                write_held()
                source.drop_pages()
        write_held()
        progress(len(names), len(names))
    if len(files) == 1:
        files[0].rename(out / "model.safetensors")


def _converted(
    source: SafetensorsSource, name: str, tied: bool, quantization: QuantizationName, quantizer: Quantizer
) -> dict[str, Tensor]:
    tensor = source.read(name, None)
    if tensor.dim() != 2 or (name == EMBEDDING and not tied):
        return {name: tensor}
    weight = quantize(tensor, quantization, head=name in (EMBEDDING, HEAD), quantizer=quantizer)
    if isinstance(weight, Tensor):
        return {name: weight}
    return sluice_format.layer_tensors(name.removesuffix(".weight"), weight)


def _write_rest(folder: ModelFolder, out: Path, quantization: QuantizationName) -> None:
    for path in _small_files(folder.path):
        shutil.copyfile(path, out / path.name)
    config = msgspec.json.decode(folder.config.read_bytes(), type=dict[str, object])
    config["quantization_config"] = sluice_format.settings(quantization, folder.stored_bytes)
    (out / "config.json").write_bytes(msgspec.json.format(msgspec.json.encode(config), indent=2) + b"\n")


def _small_files(folder: Path) -> Iterator[Path]:
    found = {path for pattern in _COPIED for path in folder.glob(pattern) if path.is_file()}
    return (path for path in sorted(found) if path.name not in _NOT_COPIED)


def copy_papers(folder: ModelFolder, out: Path) -> None:
    """Licence and description go with the weights, in whatever format."""
    for path in _small_files(folder.path):
        if path.suffix == ".md" or path.name.startswith("LICENSE"):
            shutil.copyfile(path, out / path.name)


def _put_in_place(partial: Path, out: Path) -> None:
    """Rename; what was there before is removed once the new folder has its name."""
    if not out.exists():
        partial.rename(out)
        return
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.old.", dir=out.parent) as aside:
        out.rename(Path(aside) / out.name)
        partial.rename(out)
