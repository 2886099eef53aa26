"""Finds stop strings in text that arrives in pieces, and lets through only what cannot be part of one.

The rule does not depend on how the text is cut into pieces: generation ends with the first character that
completes a stop string, and the text ends where that stop string began (the longest, if two end together).
"""

from __future__ import annotations

from typing import NamedTuple


class Released(NamedTuple):
    """What a piece of text let out."""

    text: str
    stopped: bool
    """A stop string was completed; `text` ends where it began, and nothing may follow."""


class StopStringFilter:
    """Holds back the end of the text while it could be the beginning of a stop string."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        """`stops`: non-empty strings; with none, everything passes."""
        self._stops = stops
        self._held = ""
        self.matched: str | None = None
        """The stop string that was completed."""

    @property
    def held(self) -> str:
        """Text that has been fed but not released."""
        return self._held

    def feed(self, text: str) -> Released:
        """Add a piece of text; returns what is now certain."""
        if not self._stops:
            return Released(text, False)
        text = self._held + text
        matches = [(text.find(stop), stop) for stop in self._stops]
        ends = [(start + len(stop), start) for start, stop in matches if start >= 0]
        if ends:
            self._held = ""
            end, start = min(ends)
            self.matched = text[start:end]
            return Released(text[:start], True)
        keep = len(text) - self._possible_prefix(text)
        self._held = text[keep:]
        return Released(text[:keep], False)

    def flush(self) -> str:
        """The text held back, when no more will come."""
        held, self._held = self._held, ""
        return held

    def _possible_prefix(self, text: str) -> int:
        """Length of the longest end of `text` that begins a stop string."""
        longest = min(len(text), max(map(len, self._stops)) - 1)
        for length in range(longest, 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self._stops):
                return length
        return 0
