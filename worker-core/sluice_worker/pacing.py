"""How many prompt tokens may join a step in which others decode.

A prompt computed in one go makes everyone who is being answered wait for it. In small pieces it costs them
little: a step of few rows spends its time reading weights, and more rows come almost free until arithmetic
takes longer than reading. How many that is depends on the model, its precision and the machine, so it is
learned: the allowance grows while steps with prompt tokens take less than `stretch` times as long as steps
without, and shrinks when they take more.

Tokens do not depend on how prompts are cut, so timing decides when an answer comes and never what it says.
"""

from __future__ import annotations

SMOOTHING = 0.25
"""Weight of the newest step in the running mean of steps without prompt tokens."""

LARGEST_CHANGE = 1.5
"""An allowance grows or shrinks at most by this factor at a time: one slow step means little."""

SMALLEST = 16
"""Prompt tokens that are always let in, so that prompts get on whatever else the machine does."""


class Pacer:
    """Learns from the duration of steps. One per engine."""

    def __init__(self, stretch: float, *, start: int = 64, largest: int = 1024) -> None:
        """`stretch` above 1; `start`: the allowance before anything is known; `largest`: its bound."""
        self._stretch = stretch
        self._largest = max(largest, SMALLEST)
        self._allowance = float(min(start, self._largest))
        self._decode_s: float | None = None

    @property
    def allowance(self) -> int:
        """Prompt tokens that the next step may have if it decodes too."""
        return int(self._allowance)

    def observe(self, decodes: int, prompt_tokens: int, duration_s: float) -> None:
        """Learn from a step of one token for each of `decodes` requests and `prompt_tokens` more."""
        if not decodes:
            return
        if not prompt_tokens:
            self._learn_decode(duration_s)
        elif self._decode_s is not None and (
            prompt_tokens >= self.allowance or duration_s > self._stretch * self._decode_s
        ):
            self._adjust(self._stretch * self._decode_s / duration_s)

    def _learn_decode(self, duration_s: float) -> None:
        known = self._decode_s
        self._decode_s = duration_s if known is None else known + SMOOTHING * (duration_s - known)

    def _adjust(self, room: float) -> None:
        """`room`: how many times longer the step could have taken."""
        factor = min(max(room, 1 / LARGEST_CHANGE), LARGEST_CHANGE)
        self._allowance = min(max(self._allowance * factor, SMALLEST), self._largest)
