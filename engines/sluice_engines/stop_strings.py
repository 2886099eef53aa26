"""Stop strings in text that comes in pieces: where the first one begins, and what may still become one."""

from __future__ import annotations

from collections.abc import Iterable


def first_stop(text: str, stops: Iterable[str]) -> int | None:
    """Where the first stop string begins, if there is one."""
    return min((at for stop in stops if (at := text.find(stop)) >= 0), default=None)


def held_back(text: str, stops: Iterable[str]) -> int:
    """How many characters at the end of `text` may be the beginning of a stop string."""
    most = 0
    for stop in stops:
        for length in range(min(len(stop) - 1, len(text)), most, -1):
            if text.endswith(stop[:length]):
                most = length
                break
    return most
