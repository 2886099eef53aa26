"""The frozen corpus `bench/data/prompts.jsonl`: what its lines are, reading and writing it, and its digest.

One JSON object a line. A `shared` line holds what several prompts have in common: a system prompt, a set of
tools, a schema. A `prompt` line is one conversation of one suite, with the answers of earlier turns written
out. The file is made by `corpus_generator` and never edited by hand.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

SuiteName = Literal["short", "long", "stress", "shared-prefix", "multi-turn", "tools", "json", "rag-edit"]

CORPUS_FILE = Path(__file__).resolve().parents[2] / "data" / "prompts.jsonl"


class CorpusError(Exception):
    """The corpus is not there or cannot be read; the message says what to do."""


class Shared(msgspec.Struct, frozen=True, kw_only=True, tag="shared", tag_field="kind", omit_defaults=True):
    """Something that prompts refer to by its id; one of its fields is set."""

    id: str
    system: str = ""
    tools: tuple[dict[str, Any], ...] = ()
    schema: dict[str, Any] | None = None


class Prompt(msgspec.Struct, frozen=True, kw_only=True, tag="prompt", tag_field="kind", omit_defaults=True):
    """One conversation."""

    id: str
    """The suite's name and a running number: `short-0017`."""
    suite: SuiteName
    turns: tuple[str, ...]
    """User and assistant in turn; user begins and ends."""
    max_tokens: int
    """Of each answer."""
    shared: str = ""
    """The id of a `Shared`."""
    think_ms: tuple[int, ...] = ()
    """Before the second user turn, the third, …"""


class Corpus(msgspec.Struct, frozen=True, kw_only=True):
    """All lines of the file."""

    shared: Mapping[str, Shared]
    prompts: tuple[Prompt, ...]
    sha256: str
    """Of the file's bytes."""

    def suite(self, name: SuiteName) -> tuple[Prompt, ...]:
        """The prompts of one suite, in file order."""
        return tuple(prompt for prompt in self.prompts if prompt.suite == name)


def encode(lines: Iterable[Shared | Prompt]) -> bytes:
    """The file's bytes: JSON without blanks, UTF-8, every line ended by a newline."""
    return b"".join(msgspec.json.encode(line) + b"\n" for line in lines)


def decode(data: bytes) -> Corpus:
    """The corpus in a file's bytes. Raises `CorpusError`."""
    try:
        lines = [msgspec.json.decode(line, type=Shared | Prompt) for line in data.splitlines()]
    except msgspec.DecodeError as error:
        raise CorpusError(
            f"the corpus is damaged ({error}); write it anew with: sluice-bench prompts"
        ) from error
    return Corpus(
        shared={line.id: line for line in lines if isinstance(line, Shared)},
        prompts=tuple(line for line in lines if isinstance(line, Prompt)),
        sha256=hashlib.sha256(data).hexdigest(),
    )


def load_corpus(path: Path = CORPUS_FILE) -> Corpus:
    """Read the corpus. Raises `CorpusError`."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CorpusError(f"{path} cannot be read ({error}); write it with: sluice-bench prompts") from error
    return decode(data)
