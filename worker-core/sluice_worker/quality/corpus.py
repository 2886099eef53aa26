"""The text on which variants are compared: the project's own, or a file.

The shipped corpus is frozen: its digest is checked, because figures are comparable only over the same text.
It holds conversations and stories that the bundled model was not trained on (`training/held_out.py`).
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec

from sluice_worker.errors import ConfigError
from sluice_worker.server.requests import ChatMessage

SHIPPED = Path(__file__).with_name("corpus.jsonl")
DIGEST = "a33175be117e20151a2f36a96b098358fb879dfbe431c6ead96168863f713391"
"""SHA-256 of the shipped file."""


class Document(msgspec.Struct, frozen=True):
    """Either a text, or a conversation that ends with an answer."""

    text: str = ""
    messages: list[ChatMessage] = []
    tools: list[dict[str, Any]] = []


class Corpus(msgspec.Struct, frozen=True):
    """Documents, and what to call them in a report."""

    name: str
    digest: str
    """SHA-256 of the file."""
    documents: list[Document]


def load_corpus(path: Path | None) -> Corpus:
    """The shipped corpus, or a file: `.jsonl` with a `Document` on each line, or else one plain text.

    Raises `ConfigError` for a file that cannot be read or has nothing in it.
    """
    if path is None:
        corpus = _read(SHIPPED, "sluice")
        if corpus.digest != DIGEST:
            raise ConfigError(f"{SHIPPED} is not the file that was shipped. Install sluice-worker again.")
        return corpus
    return _read(path, path.name)


def _read(path: Path, name: str) -> Corpus:
    try:
        data = path.read_bytes()
        documents = _lines(data) if path.suffix == ".jsonl" else [Document(text=data.decode())]
    except (OSError, UnicodeDecodeError, msgspec.MsgspecError) as error:
        raise ConfigError(
            f"{path} is no corpus: {error}. Give a text file, or a .jsonl file with an object with 'text' or "
            "'messages' on each line."
        ) from error
    documents = [document for document in documents if document.text.strip() or document.messages]
    if not documents:
        raise ConfigError(f"{path} has no text in it.")
    if any(document.messages and document.messages[-1].role != "assistant" for document in documents):
        raise ConfigError(f"{path} has a conversation that does not end with an assistant's answer.")
    return Corpus(name, hashlib.sha256(data).hexdigest(), documents)


def _lines(data: bytes) -> list[Document]:
    decoder = msgspec.json.Decoder(Document)
    return [decoder.decode(line) for line in data.splitlines() if line.strip()]
