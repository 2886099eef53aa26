"""How the next token of a request is to be chosen.

The server validates user input into this struct; the engine trusts it. Token ids only: stop *strings* are the
server's to match on detokenized text, because the engine knows nothing of text.
"""

from __future__ import annotations

import msgspec


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True):
    """Sampling settings of one sequence. Defaults follow OpenAI's API."""

    temperature: float = 1.0
    """0 is greedy."""
    top_k: int = 0
    """0 keeps all."""
    top_p: float = 1.0
    min_p: float = 0.0
    """Keep tokens with at least this share of the most likely token's probability."""
    seed: int = 0
    """Noise is keyed by (seed, output position), so a sequence's text does not depend on its neighbours. The
    server draws a random seed when the client gave none."""
    repetition_penalty: float = 1.0
    """Over prompt and output: positive logits divided, negative ones multiplied (Keskar et al., 2019)."""
    presence_penalty: float = 0.0
    """Over output tokens, OpenAI's definition."""
    frequency_penalty: float = 0.0
    """Over output tokens, OpenAI's definition."""
    logit_bias: dict[int, float] = {}
    max_tokens: int = 16
    """0 only with `prompt_logprobs`: the request ends when its prompt has been computed."""
    min_tokens: int = 0
    """Until then stop tokens cannot be chosen."""
    stop_token_ids: tuple[int, ...] = ()
    """End the sequence when chosen; includes the model's end tokens unless `ignore_eos` was asked."""
    logprobs: int | None = None
    """`None`: no log-probabilities. k >= 0: the chosen token's and the k most likely ones'."""
    prompt_logprobs: int | None = None
    """As `logprobs`, for the tokens of the prompt. Such a request takes no cached prefix: what is cached are
    keys and values, not what the model thought of the next token."""
