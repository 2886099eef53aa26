"""What is asked for, and what is known of it so far.

One invariant carries the engine: `num_computed <= len(tokens)`. A step computes the tokens
`[num_computed, num_computed + n)`, and when that reaches the end of `tokens`, the next token is sampled. A
prefill chunk is a large n, decode is n = 1, a prefix hit starts above 0, preemption goes back to 0. There is
no phase.
"""

from __future__ import annotations

from sluice_worker.outputs import EngineRequest, TokenLogprobs
from sluice_worker.sampling_params import SamplingParams


class Request:
    """One sequence in the engine. Compared by identity."""

    __slots__ = (
        "alone",
        "arrived_s",
        "block_digests",
        "block_ids",
        "cache_salt",
        "num_cached_tokens",
        "num_computed",
        "num_scored",
        "num_uncached",
        "output_token_ids",
        "params",
        "prompt_logprobs",
        "prompt_token_ids",
        "request_id",
        "tokens",
    )

    def __init__(self, asked: EngineRequest, arrived_s: float = 0.0) -> None:
        """`arrived_s` is on the clock that the scheduler is told the time of."""
        self.request_id: str = asked.request_id
        self.arrived_s: float = arrived_s
        self.alone: bool = asked.alone
        self.params: SamplingParams = asked.params
        self.cache_salt: str = asked.cache_salt
        self.prompt_token_ids: list[int] = asked.prompt_token_ids
        self.output_token_ids: list[int] = []
        self.tokens: list[int] = list(asked.prompt_token_ids)
        """Prompt and output in one list."""
        self.num_computed: int = 0
        """Leading tokens whose keys and values are in `block_ids`."""
        self.block_ids: list[int] = []
        """In the order of the tokens; empty unless running."""
        self.block_digests: list[bytes] = []
        """Of the leading full blocks, as far as anyone asked. Tokens never change, so neither do these."""
        self.num_cached_tokens: int | None = None
        """Prompt tokens found in the prefix cache at first admission; `None` before."""
        self.num_uncached: int = 0
        """Tokens that no cached prefix covered when it began to wait."""
        self.num_scored: int = 0
        """Leading tokens whose logits have been used for log-probabilities of the prompt. Never goes back."""
        self.prompt_logprobs: list[TokenLogprobs] = []
        """Of the prompt's tokens from the second on, as far as computed."""

    @property
    def num_uncomputed(self) -> int:
        """Tokens still to compute before the next one can be sampled. At least 1 while the request lives."""
        return len(self.tokens) - self.num_computed

    @property
    def next_scored(self) -> int | None:
        """The first position whose logits are still wanted for the prompt token after it, if any is."""
        wanted = self.params.prompt_logprobs is not None and self.num_scored < len(self.prompt_token_ids) - 1
        return self.num_scored if wanted else None

    def score(self, entries: list[TokenLogprobs]) -> None:
        """Add the next log-probabilities of the prompt."""
        self.prompt_logprobs += entries
        self.num_scored += len(entries)

    def append(self, token_id: int) -> None:
        """Add a sampled token."""
        self.tokens.append(token_id)
        self.output_token_ids.append(token_id)

    def __repr__(self) -> str:
        return f"Request({self.request_id!r}, {self.num_computed}/{len(self.tokens)} tokens computed)"
