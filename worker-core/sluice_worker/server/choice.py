"""One choice of an answer: from the engine's tokens to text that may be sent.

Invariants: text that is released is never taken back, holds no stop string and no half character, and joined
together it is the whole answer; each output token appears exactly once among the released tokens, in order,
and not before its text. The token that ends a sequence (end of turn, or one of `stop_token_ids`) is no part
of the answer.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from sluice_worker.outputs import SequenceDelta, TokenLogprobs
from sluice_worker.server.detokenizer import Detokenizer
from sluice_worker.server.stop_strings import StopStringFilter


class OutputToken(NamedTuple):
    """A token of the answer, with its log-probabilities."""

    token_id: int
    logprobs: TokenLogprobs
    text_offset: int
    """Characters of the answer before it."""


class Piece(NamedTuple):
    """What one delta of the engine released. Any part of it may be empty."""

    text: str
    tokens: list[OutputToken]
    """Only when log-probabilities were asked for."""
    finish_reason: str | None
    """`stop` or `length`, on the last piece."""


class Choice:
    """The state of one sequence on its way to the client."""

    def __init__(
        self, index: int, detokenizer: Detokenizer, stops: tuple[str, ...], min_tokens: int = 0
    ) -> None:
        """Stop strings are not looked for in the first `min_tokens` tokens."""
        self.index = index
        self.completion_tokens = 0
        self.cached_tokens = 0
        self.token_ids: list[int] = []
        """Of the answer so far, those of text that is held back included; not the token that ended it."""
        self.finish_reason: str | None = None
        self.prompt_logprobs: list[TokenLogprobs] | None = None
        """Of the prompt's tokens from the second on; they come with the first delta, if asked for."""
        self._detokenizer = detokenizer
        self._filter = StopStringFilter(stops)
        self._min_tokens = min_tokens
        self._decoded = 0
        self._released = 0
        self._waiting: deque[OutputToken] = deque()

    @property
    def stop_string(self) -> str | None:
        """The stop string that ended it, if one did."""
        return self._filter.matched

    def accept(self, delta: SequenceDelta) -> Piece:
        """Take in what a step added. A stop string ends the choice even though the engine goes on."""
        self.cached_tokens = delta.num_cached_tokens
        if delta.prompt_logprobs is not None:
            self.prompt_logprobs = delta.prompt_logprobs
        text = ""
        for position, token_id in enumerate(delta.new_token_ids):
            last = position == len(delta.new_token_ids) - 1
            logprobs = delta.logprobs[position] if delta.logprobs else None
            self.completion_tokens += 1
            if last and delta.finish_reason == "stop":
                break  # the token that ended it has no text
            self.token_ids.append(token_id)
            text += self._take(token_id, logprobs)
            if self.finish_reason:
                break
        if delta.finish_reason and not self.finish_reason:
            text += self._finish(delta.finish_reason)
        self._released += len(text)
        return Piece(text, self._released_tokens(), self.finish_reason)

    def _take(self, token_id: int, logprobs: TokenLogprobs | None) -> str:
        """Text released by one token."""
        if logprobs is not None:
            self._waiting.append(OutputToken(token_id, logprobs, self._decoded))
        text = self._detokenizer.add(token_id)
        self._decoded += len(text)
        return self._filtered(text)

    def _filtered(self, text: str) -> str:
        if self.completion_tokens <= self._min_tokens:
            return text
        released = self._filter.feed(text)
        if released.stopped:
            self.finish_reason = "stop"
        return released.text

    def _finish(self, reason: str) -> str:
        """The engine has ended the sequence: let out what was held back."""
        rest = self._detokenizer.flush()
        self._decoded += len(rest)
        text = self._filtered(rest) + self._filter.flush()
        self.finish_reason = self.finish_reason or reason
        return text

    def _released_tokens(self) -> list[OutputToken]:
        """Tokens whose text has begun to be released; those cut off by a stop string never are."""
        released = []
        complete = self.finish_reason is not None and self._released == self._decoded
        while self._waiting and (complete or self._waiting[0].text_offset < self._released):
            released.append(self._waiting.popleft())
        return released
