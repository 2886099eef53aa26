"""`sluice-worker quantize`: what the command does once its options are read."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast, get_args

import torch

from sluice_worker.config import ConversionName, QuantizationName
from sluice_worker.kernels.select import select_kernels
from sluice_worker.loading.export import copy_papers, refuse_quantized, whole_folder, write_quantized
from sluice_worker.loading.gguf_export import GgufType, write_gguf
from sluice_worker.loading.model_folder import ModelFolder, open_folder, resolve_model
from sluice_worker.quality.corpus import load_corpus
from sluice_worker.server.gguf_vocabulary import gguf_vocabulary

GGUF_NAME = "model.gguf"
"""The file in a folder that was converted to GGUF."""

_TRICKY = (
    "It's what we've said: they'll go, I'd stay.",
    "one\n\ntwo\n \n three\tfour  five   ",
    "def f(x):\n    return x[1:] + 'quoted'\n",
    "1234567 -12.5e3 100%",
    "Grüße, мир, 你好, \u00e9\u0301 \U0001f600!",
    "He said 'tell me' and 'really', \t'then' left.",
    "(brackets)[x]{y} a/b\\c a_b --option=1 ...!?",
)
"""Texts beside the corpus on which a pattern of words is tried."""

Say = Callable[[str], None]


def run_quantize(model: str, out: Path, to: ConversionName, *, replace: bool) -> str:
    """Convert `model` into the folder `out`, showing how far it is; returns one line about the result.

    Raises `ConfigError` or `ModelLoadError`.
    """
    folder = resolve_model(model)
    convert(folder, out, to, replace=replace, say=lambda line: print(line, file=sys.stderr))  # noqa: T201
    before, after = folder.stored_bytes, open_folder(out, out.name).stored_bytes
    return f"{out}: {to}, {after / 1e6:.1f} MB of weights, before {before / 1e6:.1f} MB"


def convert(folder: ModelFolder, out: Path, to: ConversionName, *, replace: bool, say: Say) -> None:
    """The model in `folder` as the new folder `out`, which appears whole or not at all.

    Raises `ConfigError` or `ModelLoadError`.
    """
    quantizer = select_kernels(torch.device("cpu")).quantize
    if not to.startswith("gguf"):
        wanted = cast(QuantizationName, to)
        write_quantized(folder, out, wanted, quantizer, _shown(folder.name), replace=replace)
        return
    refuse_quantized(folder)
    texts = [*_TRICKY, *_texts()]
    vocabulary = gguf_vocabulary(folder, texts)
    if vocabulary.agreement < 1:
        say(
            f"the way that {folder.name} splits words has no name in GGUF: llama.cpp will take "
            f"{vocabulary.pattern}, which gives the same tokens for {vocabulary.agreement:.1%} of "
            f"{len(texts)} texts"
        )
    kind = _gguf_type(to)
    with whole_folder(out, replace) as partial:
        copy_papers(folder, partial)
        write_gguf(folder, partial / GGUF_NAME, kind, vocabulary.metadata, quantizer, _shown(folder.name))


def _gguf_type(to: ConversionName) -> GgufType | None:
    """Of `gguf-q8_0`; plain `gguf` keeps what the checkpoint has."""
    kind = to.removeprefix("gguf").removeprefix("-")
    return cast(Any, kind) if kind in get_args(GgufType) else None


def _texts() -> list[str]:
    documents = load_corpus(None).documents
    said = [message.content for document in documents for message in document.messages]
    texts = [*(document.text for document in documents), *said]
    return [text for text in texts if isinstance(text, str) and text]


def _shown(name: str) -> Callable[[int, int], None]:
    shown = sys.stderr.isatty()

    def show(done: int, total: int) -> None:
        if shown:
            end = "\n" if done == total else ""
            sys.stderr.write(f"\rconverting {name}: {done} of {total} tensors{end}")
            sys.stderr.flush()

    return show
