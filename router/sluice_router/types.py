"""The values that the router takes and returns.

The pure core owns its values: `engines` fills `EngineLoad` by scraping, `gateway` fills `RequestFacts`
from the HTTP request, and both get `Reject` or an `Endpoint` back. Everything here is frozen and holds no
reference to a socket, a clock or a task.

Times are seconds on whatever monotonic clock the caller passes in.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

QUANTS: tuple[str, ...] = ("none", "awq", "int8", "int4", "fp8")
"""Valid values of the `X-Quant` header."""


class Outcome(StrEnum):
    """How a request's stay in the router ended. Low cardinality: safe as a metric label."""

    DISPATCHED = "dispatched"
    """Placed on an endpoint."""
    SHED_CAPACITY = "shed_capacity"
    """The queue was full: 429."""
    NO_ENDPOINT = "no_endpoint"
    """No healthy endpoint serves what was asked: 503."""
    EXPIRED = "expired"
    """Waited in the queue longer than its class allows: 503."""
    CANCELLED = "cancelled"
    """The client left while waiting."""


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine can do; asking for more is refused before anything is sent."""

    endpoints: frozenset[str] = frozenset({"chat", "completions"})
    """Of `chat`, `completions`, `embeddings`."""
    logprobs: bool = True
    tools: bool = False
    json_schema: bool = False
    images: bool = False
    multiple_choices: bool = True
    """`n > 1`."""


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One replica of one engine."""

    id: str
    """Unique; used as a metric label and in logs."""
    backend: str
    """The name that `X-Backend` selects, e.g. `worker`."""
    url: str
    """Base URL without a trailing slash, e.g. `http://127.0.0.1:8006`."""
    models: tuple[str, ...] = ()
    """Model ids it serves; empty means any."""
    quant: str = "none"
    capabilities: Capabilities = Capabilities()
    max_in_flight: int = 64
    """Requests that may run on it at once; further ones wait in the router's queue."""


class EngineLoad(msgspec.Struct, frozen=True, kw_only=True):
    """A reading of an engine's own gauges. `None` means unknown, never zero."""

    running: int | None = None
    waiting: int | None = None
    kv_used_ratio: float | None = None
    """0 to 1."""


class RequestFacts(msgspec.Struct, frozen=True, kw_only=True):
    """All that admission and placement may know of a request."""

    request_id: str
    kind: str
    """`chat`, `completions` or `embeddings`."""
    model: str
    tenant: str = "default"
    backend: str | None = None
    """From `X-Backend`; `None` lets the router choose."""
    allowed_backends: frozenset[str] | None = None
    """The backends that the key may use; `None` means all."""
    quant: str | None = None
    """From `X-Quant`; `None` lets the router choose."""
    stream: bool = False
    prompt_tokens_estimate: int = 0
    max_tokens: int | None = None
    needs: frozenset[str] = frozenset()
    """Names of boolean fields of `Capabilities` that the request uses, e.g. `{"logprobs", "tools"}`."""


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens actually used; what reservations and cost models are settled with."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0


class Reject(msgspec.Struct, frozen=True, kw_only=True):
    """A decision not to serve. A value, not an exception: being full is ordinary."""

    outcome: Outcome
    status: int
    message: str
    retry_after_s: float | None = None
