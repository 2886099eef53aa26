"""How many prompt tokens may join a step in which others decode.

A prompt computed in one go makes everyone who is being answered wait for it. In small pieces it costs them
little: a step of few rows spends its time reading weights, and more rows come almost free until arithmetic
takes longer than reading. But many small pieces keep those waiting who have no answer yet, and compute fewer
tokens a second than large ones. So time is shared by head: each prompt that waits or is being computed may
make a step longer by `stretch - 1` times what decoding alone takes, whoever's tokens fill it. One prompt
hardly shows in a running answer; after a burst, the many who wait get most of the time.

How many tokens that is depends on the model, its precision and the machine, so it is learned from steps: what
one without prompt tokens takes, and what a row costs in one with them.

Tokens do not depend on how prompts are cut, so timing decides when an answer comes and never what it says.
"""

from __future__ import annotations

SMOOTHING = 0.25
"""Weight of the newest step in the running mean of steps without prompt tokens."""

LARGEST_CHANGE = 1.5
"""What a row costs rises or falls at most by this factor at a time: one slow step means little."""

SMALLEST = 16
"""Prompt tokens that are always let in, so that prompts get on whatever else the machine does."""

MOST_SHARES = 8
"""Prompts that count: a step for so many has rows enough to compute at full speed."""


class Pacer:
    """Learns from the duration of steps. One per engine; each step is `allowance`, then `observe`."""

    def __init__(self, stretch: float, *, start: int = 64, largest: int = 1024) -> None:
        """`stretch` above 1; `start`: the allowance before anything is known; `largest`: its bound."""
        self._stretch = stretch
        self._largest = max(largest, SMALLEST)
        self._start = min(start, self._largest)
        self._decode_s: float | None = None
        self._row_s: float | None = None
        self._allowed = 0
        self._target_s = 0.0

    def allowance(self, decodes: int, prompts: int) -> int:
        """Prompt tokens for a step that decodes `decodes` requests beside `prompts` not yet computed."""
        self._allowed = self._start
        if self._decode_s is not None and self._row_s is not None:
            # The decoding steps learned from may have had fewer rows.
            decode_s = max(self._decode_s, decodes * self._row_s)
            shares = min(prompts, MOST_SHARES)
            self._target_s = decode_s * (1 + (self._stretch - 1) * shares)
            fitting = int(self._target_s / self._row_s) - decodes
            self._allowed = min(max(fitting, SMALLEST), self._largest)
        return self._allowed

    def observe(self, decodes: int, prompt_tokens: int, duration_s: float) -> None:
        """Learn from a step of one token for each of `decodes` requests and `prompt_tokens` more."""
        if not decodes:
            return
        if not prompt_tokens:
            self._learn_decode(duration_s)
        elif prompt_tokens >= self._allowed or duration_s > self._target_s > 0:
            # In a step that was not full, rows may have shared the reading of weights with too few.
            self._learn_row(duration_s / (decodes + prompt_tokens))

    def _learn_decode(self, duration_s: float) -> None:
        known = self._decode_s
        self._decode_s = duration_s if known is None else known + SMOOTHING * (duration_s - known)

    def _learn_row(self, row_s: float) -> None:
        known = self._row_s or row_s
        self._row_s = min(max(row_s, known / LARGEST_CHANGE), known * LARGEST_CHANGE)
