"""What crosses between the engine and whoever drives it: one request in, deltas out, ids only.

These structs are msgpack frames on the socket between the server process and the engine process, and plain
objects when the engine runs in-process.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from sluice_worker.sampling_params import SamplingParams

FinishReason = Literal["stop", "length", "abort"]


class EngineRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One sequence to generate (the server fans `n > 1` out into n of these)."""

    request_id: str
    prompt_token_ids: list[int]
    params: SamplingParams
    cache_salt: str = ""
    """Requests share cached prefixes only within the same salt (a tenant)."""
    alone: bool = False
    """Run without companions: wait for the batch ahead to finish, and let nobody join."""


class TokenLogprobs(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Log-probabilities at one position: the model's own, before temperature and penalties."""

    logprob: float
    """Of the token that stands there."""
    top_token_ids: list[int]
    top_logprobs: list[float]


class SequenceDelta(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """What one step added to one sequence."""

    request_id: str
    new_token_ids: list[int]
    """Includes the stop token when one ended the sequence. Empty when only the prompt was asked for."""
    logprobs: list[TokenLogprobs] | None = None
    """One per new token when asked for."""
    finish_reason: FinishReason | None = None
    stop_token_id: int | None = None
    """The token that ended it, when `finish_reason` is `stop`."""
    num_cached_tokens: int = 0
    """Prompt tokens that came from the prefix cache."""
    prompt_logprobs: list[TokenLogprobs] | None = None
    """In the first delta, when asked for: one per prompt token but the first, which nothing precedes."""


class EngineStats(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """Gauges and monotonic counters, sent with every step."""

    num_running: int = 0
    num_waiting: int = 0
    waiting_uncached_tokens: int = 0
    """Tokens of those that wait which no cached prefix covered when they began to: the prefill ahead."""
    kv_blocks_total: int = 0
    kv_blocks_used: int = 0
    """Referenced by a live request; cached-but-free blocks do not count."""
    kv_blocks_cached: int = 0
    """Free, but holding a prefix that may be hit."""
    kv_tokens_reserved: int = 0
    """Token places in the blocks that live requests hold; a shared block counts for each of them."""
    kv_tokens_held: int = 0
    """Those of them whose keys and values are computed. Less than 1 of reserved is memory kept for later."""
    prompt_tokens_total: int = 0
    """Prompt tokens computed or taken from the cache, counted once a request."""
    cached_tokens_total: int = 0
    """Prompt tokens taken from the prefix cache."""
    generation_tokens_total: int = 0
    preemptions_total: int = 0
    steps_total: int = 0
    sequence_steps_total: int = 0
    """Sequences in each step, added up: over `steps_total`, the mean batch."""
    kv_reserved_steps_total: int = 0
    """`kv_tokens_reserved` of each step, added up: `kv_held_steps_total` over it is the mean utilisation."""
    kv_held_steps_total: int = 0
    """`kv_tokens_held` of each step, added up."""


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What `GET /model` reports, and what the server needs to validate requests."""

    model: str
    architecture: str
    vocab_size: int
    eos_token_ids: list[int]
    max_model_len: int
    """Tokens of prompt plus output that one sequence may have: the context, or all KV blocks if fewer."""
    device: str
    dtype: str
    quantization: str
    """Of most linear layers: `none`, `int8`, `int4` or `awq`."""
    weight_bytes: int
    """Memory of the weights as they are computed with."""
    max_num_seqs: int
    max_num_batched_tokens: int
    block_size: int
    num_kv_blocks: int
    kv_bytes_per_token: int
    num_parameters: int
    kernels: str
    """`reference`, `cpu` or `cuda`."""
    batching: str = "continuous"
    """`none`, `static`, `dynamic` or `continuous`."""
    kv: str = "paged"
    """`dense` or `paged`."""


class StepOutputs(msgspec.Struct, frozen=True, kw_only=True):
    """Everything one engine step produced."""

    deltas: list[SequenceDelta]
    stats: EngineStats
