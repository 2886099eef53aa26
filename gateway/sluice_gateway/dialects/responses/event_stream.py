"""Numbering and framing of a response's events.

Invariant: `sequence_number` counts the events of one response from `first` on, without gaps. There is no
`[DONE]`: the last event says itself that it is. Source: OpenAI's API reference, "Streaming events".
"""

from __future__ import annotations

from typing import Any

import msgspec

LAST = frozenset({"response.completed", "response.incomplete", "response.failed", "response.cancelled"})
"""Types of the event that ends a stream."""


class EventWriter:
    """Collects the events that one piece of upstream news gives rise to."""

    __slots__ = ("_next", "_pieces")

    def __init__(self, first: int) -> None:
        self._next = first
        self._pieces: list[bytes] = []

    def add(self, kind: str, fields: dict[str, Any]) -> None:
        """One more event."""
        self._pieces.append(frame(kind, {"type": kind, "sequence_number": self._next, **fields}))
        self._next += 1

    def take(self) -> bytes:
        """The events since the last call, framed."""
        taken = b"".join(self._pieces)
        self._pieces.clear()
        return taken


def frame(kind: str, fields: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), msgspec.json.encode(fields))
