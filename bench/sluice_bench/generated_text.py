"""Which parts of an OpenAI answer are generated text, and what the text is in all.

Text is `content` (of a completion: `text`), reasoning, a refusal, and of a tool call its name and arguments.
Reasoning goes by two names, and a server may send the same text under both: it counts once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import Any

import msgspec

Json = dict[str, Any]


class Kind(IntEnum):
    """What a piece of text is for, in the order in which a digest takes them."""

    REASONING = 0
    CONTENT = 1
    REFUSAL = 2
    CALL_NAME = 3
    CALL_ARGUMENTS = 4


class Piece(msgspec.Struct, frozen=True):
    """Some text of one choice; never empty."""

    kind: Kind
    text: str
    call: int = 0
    """Which tool call it belongs to."""

    @property
    def n_bytes(self) -> int:
        """As UTF-8."""
        return len(self.text.encode("utf-8", "replace"))


def pieces(choice: Json, part: Json) -> list[Piece]:
    """All text of a choice; `part` is its `delta` or its `message`."""
    reasoning = part.get("reasoning_content") or part.get("reasoning")
    found = [
        (Kind.REASONING, reasoning, 0),
        (Kind.CONTENT, part.get("content"), 0),
        (Kind.CONTENT, choice.get("text"), 0),
        (Kind.REFUSAL, part.get("refusal"), 0),
        *_call_texts(part.get("tool_calls")),
    ]
    return [Piece(kind, text, call) for kind, text, call in found if isinstance(text, str) and text]


def _call_texts(calls: object) -> Iterator[tuple[Kind, object, int]]:
    for position, call in enumerate(calls if isinstance(calls, list) else []):
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            index = call.get("index", position)
            place = index if isinstance(index, int) else position
            yield Kind.CALL_NAME, function.get("name"), place
            yield Kind.CALL_ARGUMENTS, function.get("arguments"), place


def size(found: Sequence[Piece]) -> int:
    """UTF-8 bytes."""
    return sum(piece.n_bytes for piece in found)


class GeneratedText:
    """The text of an answer, put together from the pieces of its events."""

    def __init__(self) -> None:
        self._texts: dict[tuple[int, Kind, int], list[str]] = {}

    def add(self, choice: int, found: Sequence[Piece]) -> None:
        """The next text of a choice."""
        for piece in found:
            self._texts.setdefault((choice, piece.kind, piece.call), []).append(piece.text)

    def sha256(self) -> str:
        """Hex digest; empty when there is no text.

        However a server cuts its answer, the digest is that of the whole texts: by choice, then by kind and
        call, with a zero byte between two. Of an answer with nothing but content it is the content's own.
        """
        if not self._texts:
            return ""
        texts = ["".join(self._texts[place]) for place in sorted(self._texts)]
        return hashlib.sha256("\0".join(texts).encode("utf-8", "replace")).hexdigest()
