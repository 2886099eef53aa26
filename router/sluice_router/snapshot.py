"""The router's state at one moment, as values: for metrics and the admin view."""

from __future__ import annotations

import msgspec

from sluice_router.breaker import BreakerState
from sluice_router.types import Endpoint, EngineLoad, HedgeResult, Outcome, Usage


class WorkSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What one endpoint has been given and not finished, and how fast it is. `None` means not measured."""

    leases: int
    work: int
    """Of them, in cost units: a prompt token is one, an output token two."""
    new_tokens_queued: int
    """Prompt tokens still to be computed."""
    kv_tokens: int
    """Tokens held in the KV cache, or expected to be."""
    kv_used_ratio: float | None
    in_flight_limit: int
    """Requests that it is given at once: as configured, or fewer where its answers slowed down."""
    prefill_tokens_per_s: float | None
    itl_s: float | None
    """Seconds between tokens for a request alone."""
    drain_work_per_s: float
    """Work that leaves it in a second; 0 while unknown."""
    ttft_measured: int
    """First tokens that predictions rest on."""
    oldest_lease_at: float | None
    """When the request that has been there longest was placed, on the router's clock."""


class SpeedSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What one endpoint's times are predicted with, see `latency_model.py`; `None` while too little is
    measured."""

    ttft_base_s: float | None
    """Seconds to the first token of an empty prompt."""
    own_token_s: float | None
    """For each uncached token of the prompt,"""
    queued_token_s: float | None
    """for each token of those queued before it,"""
    beside_token_s: float | None
    """and for each token of both, times the requests that run there."""
    itl_base_s: float | None
    """Seconds between tokens,"""
    itl_request_s: float | None
    """and for each request of the batch."""
    itl_measured: int
    """Answers that the last two rest on."""


class ReplicaSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint's state at one moment, for metrics and the admin view."""

    endpoint: Endpoint
    """With the models last discovered."""
    healthy: bool
    draining: bool
    """Gets no new requests by somebody's wish."""
    breaker: BreakerState
    breaker_forced: bool
    """Somebody set the breaker's state by hand."""
    probe_at: float | None
    """When an open breaker will let a request pass, on the router's clock; `None` when it is not open by
    itself."""
    failures: int
    """Failures in a row that the breaker counted."""
    in_flight: int
    load: EngineLoad | None
    """The last reading, however old; `None` before the first."""
    load_at: float | None
    """When it was taken, on the router's clock."""
    mean_service_s: float | None
    """Moving average from placement to settlement; `None` before the first settlement."""
    settled: int
    """Requests that gave their slot back, whatever their end."""
    usage: Usage
    """Sum of all settled usages."""
    expected_tokens: int
    """Prompt tokens that were expected to be in its prefix cache, of the settled requests whose prompt had a
    hash chain and whose usage is known,"""
    cached_tokens: int
    """and those of them that the engine says it took from there."""
    work: WorkSnapshot
    speed: SpeedSnapshot


class RouterSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The router's state at one moment, for metrics and the admin view."""

    replicas: tuple[ReplicaSnapshot, ...]
    """In the order of the configuration."""
    waiting: int
    waiting_tokens: int
    """Prompt tokens of those that wait."""
    waiting_work: int
    """What they are expected to cost."""
    admitted: int
    """Tickets issued since the start, refused ones included."""
    retries: int
    """Attempts after a request's first one."""
    prefix_blocks: int
    """Blocks of prompts that are believed to be in the endpoints' caches, in all indexes together."""
    prefix_bytes: int
    """Memory of the indexes."""
    outcomes: dict[Outcome, int]
    """Closed tickets by outcome; every outcome has an entry."""
    hedges: dict[HedgeResult, int]
    """Second attempts by what became of them, and those that were not made; all have an entry."""


class ReturnsSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Who was told when to come back, and is expected, see `return_times.py`."""

    expected: int
    """Requests."""
    service_s: float
    """Seconds of the endpoints' drain that they will need."""
    last_at: float | None
    """The last time that was told, on the router's clock; `None` when all are over."""
    kept_share: float
    """Of those that were told a time, how many came at it lately: what is held back for the others."""
