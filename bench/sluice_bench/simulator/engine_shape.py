"""How fast and how large a simulated engine is: the few numbers that a real one is fitted to.

One step of the batch takes

    step_s + sequence_s * (sequences that decode) + (prefill tokens of the step) / prefill_tokens_per_s

so that the time between two tokens of an answer is `a + b * batch`, and prefill beside it makes it longer.
What is not modelled: that long contexts cost more attention, and that kernels like some batch sizes better.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


class EngineShape(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of engine. Raises `ValueError` when it could not run at all."""

    prefill_tokens_per_s: float
    step_s: float
    """`a`: a step with next to nothing in it."""
    sequence_s: float
    """`b`: what each sequence that decodes adds to a step."""
    chunk_tokens: int
    """Tokens of one step, decoded and prefilled together."""
    max_running: int
    """Sequences in the batch."""
    kv_tokens: int
    block_tokens: int = 16
    overhead_s: float = 0.0
    """Added to every first token: network, tokenizer, template."""
    cold_start_s: float = 30.0
    """From its start until it is ready."""

    def __post_init__(self) -> None:
        speeds = (self.prefill_tokens_per_s, self.step_s)
        if min(speeds) <= 0 or min(self.sequence_s, self.overhead_s, self.cold_start_s) < 0:
            raise ValueError("an engine needs a positive speed, and no time may be negative")
        if not 0 < self.max_running < self.chunk_tokens:
            raise ValueError("a step's tokens must leave room for prefill beside a full batch")
        if self.block_tokens < 1 or self.kv_tokens < self.block_tokens:
            raise ValueError("an engine needs at least one KV block")

    @property
    def kv_blocks(self) -> int:
        """Whole blocks of the cache."""
        return self.kv_tokens // self.block_tokens

    def step_duration_s(self, decoding: int, prefill_tokens: int) -> float:
        """One step."""
        return self.step_s + self.sequence_s * decoding + prefill_tokens / self.prefill_tokens_per_s


SHAPES: Mapping[str, EngineShape] = {
    # The constants of SMG's mock worker (lightseekorg/smg), which stands for one H100 with an 8B model.
    "h100-8b": EngineShape(
        prefill_tokens_per_s=8000,
        step_s=0.006,
        sequence_s=0.00035,
        chunk_tokens=2048,
        max_running=256,
        kv_tokens=524_288,
    ),
    # Small enough to fill within seconds of simulated time.
    "small": EngineShape(
        prefill_tokens_per_s=2000,
        step_s=0.02,
        sequence_s=0.002,
        chunk_tokens=512,
        max_running=32,
        kv_tokens=65_536,
    ),
}
