"""One request as an engine sees it: how much there is to compute, and how far it has come.

Whoever gave it to the engine is told through its three callbacks, each at the simulated time at which it
happens; `first_token` at most once, then exactly one of `finished` and `broken`, unless it was aborted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sluice_bench.simulator.kv_ledger import Stream


WAITING, PREFILL, DECODE, GONE = range(4)
"""Where a job is. Plain numbers: they are compared for every request, many times."""


class Job:
    """Tokens. `stream` names what the first `shared` tokens of the prompt are the beginning of."""

    __slots__ = (
        "answered",
        "entry",
        "finish_step",
        "generated",
        "hit",
        "lent",
        "offset",
        "output",
        "prompt",
        "recomputed",
        "remaining",
        "shared",
        "state",
        "stream",
        "uncached_estimate",
    )

    def __init__(self, stream: int, shared: int, prompt: int, output: int) -> None:
        self.stream = stream
        self.shared = shared
        self.prompt = prompt
        self.output = output
        self.generated = 0
        """Output tokens so far; what a preemption left is computed anew as if it were prompt."""
        self.remaining = 0
        """Tokens yet to be prefilled."""
        self.hit = 0
        """Tokens that the prefix cache had, at the latest admission into the batch."""
        self.recomputed = 0
        """Tokens that were prefilled again after a preemption."""
        self.uncached_estimate = 0
        self.state = WAITING
        self.answered = False
        self.finish_step = 0
        self.offset = 0
        """Once it decodes: its tokens in the KV cache, less the engine's number of steps."""
        self.lent = 0
        """Blocks that belong to its stream and not to itself."""
        self.entry: Stream | None = None

    def first_token(self, now: float) -> None:
        """The first output token is there."""

    def finished(self, now: float) -> None:
        """The last one is."""

    def broken(self, now: float) -> None:
        """The engine died."""
