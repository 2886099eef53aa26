"""The text that is read: cut into windows, each sent as one prompt.

Windows are cut by the server's own tokenizer where it offers `/tokenize` (vLLM and Sluice's worker do), as
token ids, so that nothing is tokenized twice; every token but the first of a window counts. Where it does
not, a window is a piece of text that ends between two words, of about as many tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from sluice_bench.workloads.corpus import Corpus

Window = str | list[int]
"""A prompt, as text or as token ids."""

CHARACTERS_A_TOKEN = 3
"""Low for English with a large tokenizer, so that a window of text seldom has more tokens than was asked."""


class Text(msgspec.Struct, frozen=True, kw_only=True):
    """What is read: documents that have nothing to do with each other."""

    name: str
    documents: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """Of the documents in order, a zero byte between two."""
        return hashlib.sha256("\0".join(self.documents).encode("utf-8", "replace")).hexdigest()


def text_of_file(path: Path) -> Text:
    """One document. Raises `OSError`, and `ValueError` when there is no text in it."""
    try:
        document = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error}") from error
    if not document.strip():
        raise ValueError(f"{path} has no text in it")
    return Text(name=path.name, documents=(document,))


def text_of_corpus(corpus: Corpus) -> Text:
    """The prompts of the suite `short`, each a document."""
    prompts = corpus.suite("short")
    return Text(name="prompts.jsonl, short", documents=tuple(prompt.turns[0] for prompt in prompts))


def windows_of_tokens(token_ids: Sequence[int], length: int) -> Iterator[list[int]]:
    """At most `length` tokens each; a last one of a single token predicts nothing and is left out."""
    for start in range(0, len(token_ids), length):
        window = list(token_ids[start : start + length])
        if len(window) > 1:
            yield window


def windows_of_text(document: str, length: int) -> Iterator[str]:
    """About `length` tokens each, cut before a word where there is one."""
    size = length * CHARACTERS_A_TOKEN
    start = 0
    while start < len(document):
        end = min(start + size, len(document))
        if end < len(document):
            blank = document.rfind(" ", start + 1, end)
            end = blank if blank > start else end
        if document[start:end].strip():
            yield document[start:end]
        start = end


def spread(windows: Sequence[Window], most: int) -> list[Window]:
    """At most `most` of them, evenly from beginning to end."""
    if len(windows) <= most:
        return list(windows)
    return [windows[index * len(windows) // most] for index in range(most)]
