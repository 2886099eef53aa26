"""What generates tokens: the interface between the server and a library's loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """How tokens are chosen; the same for a whole batch."""

    temperature: float = 1.0
    """0 is greedy."""
    top_p: float = 1.0
    top_k: int = 0
    """0 is off."""
    repetition_penalty: float = 1.0
    seed: int | None = None


class Row:
    """One sequence to generate, and where its tokens go.

    `take` is called in the runtime's thread, `cancel` in any.
    """

    def __init__(
        self,
        prompt: Sequence[int],
        max_tokens: int,
        sampling: Sampling,
        on_token: Callable[[int | None, str | None], None],
    ) -> None:
        """`on_token` gets a token, or at the end `None` and why: `stop`, `length` or an error's sentence."""
        self.prompt = tuple(prompt)
        self.max_tokens = max_tokens
        self.sampling = sampling
        self.generated = 0
        self.done = False
        """Nothing more is wanted of it."""
        self._on_token = on_token

    def take(self, token: int, end_tokens: frozenset[int]) -> None:
        """The next token of this row."""
        if self.done:
            return
        self.generated += 1
        if token in end_tokens:
            self.finish("stop")
            return
        self._on_token(token, None)
        if self.generated >= self.max_tokens:
            self.finish("length")

    def finish(self, reason: str) -> None:
        """No more tokens come."""
        if not self.done:
            self.done = True
            self._on_token(None, reason)

    def cancel(self) -> None:
        """Nobody waits for it any more."""
        self.done = True


class Runtime(Protocol):
    """A model in memory."""

    name: str
    max_model_len: int
    """Tokens of prompt and answer together."""
    max_batch: int
    """Rows that it can generate at once."""
    end_tokens: frozenset[int]

    def generate(self, rows: Sequence[Row]) -> None:
        """Generate until every row is done. All have the same sampling. Blocks; called in a thread."""
        ...
