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
    SHED_DEADLINE = "shed_deadline"
    """Its first token would have come too late for its class, by what was measured: 429."""
    EXPIRED = "expired"
    """Waited in the queue longer than its class allows: 503."""
    EXHAUSTED = "exhausted"
    """Failed on an endpoint, and may not, or cannot, be tried on another: the last failure is the answer."""
    CANCELLED = "cancelled"
    """The client left while waiting."""


class HedgeResult(StrEnum):
    """What became of a second attempt, or why there was none. Low cardinality: safe as a metric label."""

    WON = "won"
    """It answered first, or the first attempt failed: the answer is its."""
    LOST = "lost"
    """The first attempt answered first, or showed that the request is at fault."""
    FAILED = "failed"
    """It failed before either had answered."""
    LEFT = "left"
    """The client left before either had answered."""
    NO_ROOM = "no_room"
    """None: it was time, but no other endpoint was free and quick."""
    NO_BUDGET = "no_budget"
    """None: it was time, but there had been enough of them."""


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine can do; asking for more is refused before anything is sent."""

    endpoints: frozenset[str] = frozenset({"chat", "completions"})
    """The kinds of request that it answers itself, e.g. `chat`, `completions`, `embeddings`, `responses`."""
    logprobs: bool = True
    prompt_logprobs: bool = False
    """It gives the log-probabilities of the prompt's own tokens."""
    tools: bool = False
    """It reads a request's `tools`."""
    tool_calls: bool = False
    """And answers with calls of them."""
    json_schema: bool = False
    images: bool = False
    multiple_choices: bool = True
    """`n > 1`."""
    continues_text: bool = True
    """It completes whatever prompt it gets, one that another engine's answer was put behind as well."""
    continues_chat: bool = False
    """It goes on with an assistant's last message when it is told to: `continue_final_message`."""
    continues_space: bool = False
    """Also when that begins or ends with white space, which some templates cut off."""


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
    hedging: bool = False
    """It costs nothing but its time: a second attempt may be made there, or elsewhere beside one there."""


class EngineLoad(msgspec.Struct, frozen=True, kw_only=True):
    """A reading of an engine's own metrics. `None` means unknown, never zero.

    Counters only grow while the engine lives and begin again with it: what counts is the difference between
    two readings. An engine with several data-parallel ranks is one engine here, its ranks added up.
    """

    running: int | None = None
    """Requests in the batch."""
    waiting: int | None = None
    """Requests that wait for room in it. Those held back by something else are not congestion."""
    waiting_uncached_tokens: int | None = None
    """Tokens of those that wait which no cached prefix covers: the prefill ahead of a newcomer."""
    max_running: int | None = None
    """Requests that the batch has room for."""
    kv_used_ratio: float | None = None
    """Share of the KV cache that live requests hold, 0 to 1. A cached prefix that nobody uses is free."""
    kv_block_tokens: int | None = None
    """Tokens of one KV block: the grain of prefix caching."""
    kv_capacity_tokens: int | None = None
    """Tokens that the whole KV cache holds."""
    prefix_queried_tokens: int | None = None
    """Counter: prompt tokens that were looked up in the prefix cache."""
    prefix_hit_tokens: int | None = None
    """Counter: those of them that were found."""
    prefix_hit_ratio: float | None = None
    """0 to 1, over a period of the engine's choice; from engines that do not count tokens."""
    preemptions: int | None = None
    """Counter: requests put back to wait for lack of KV cache."""
    prompt_tokens: int | None = None
    """Counter."""
    generation_tokens: int | None = None
    """Counter."""
    ttft_sum_s: float | None = None
    """Counter: seconds from arrival to first token, over `ttft_count` requests."""
    ttft_count: int | None = None
    queue_time_sum_s: float | None = None
    """Counter: seconds spent waiting, over `queue_time_count` requests."""
    queue_time_count: int | None = None
    draft_tokens: int | None = None
    """Counter: tokens proposed by speculation."""
    accepted_tokens: int | None = None
    """Counter: those of them that were right."""
    max_loras: int | None = None
    """LoRA adapters that can be loaded at once."""
    loras: tuple[str, ...] | None = None
    """Names of those in use now."""
    asleep: bool | None = None
    """It has put its weights away, and wakes up for a request slowly or not at all."""
    quant: str | None = None
    """The quantization of the loaded model, one of `QUANTS`."""


class FailureClass(StrEnum):
    """Whose fault an attempt's failure is: what decides on retry and breaker, not the HTTP status."""

    CALLER = "caller"
    """The request is wrong: never retried, never counted against the endpoint."""
    CLIENT_GONE = "client_gone"
    """The client left or stopped reading: never retried, never counted against the endpoint."""
    UNREACHABLE = "unreachable"
    """No connection: nothing was sent. Retried elsewhere, counted."""
    BROKEN = "broken"
    """The connection was lost, or what came was not HTTP, or the stream was cut. Counted; retried elsewhere
    while no content has reached the client."""
    FAULT = "fault"
    """The engine failed (5xx, an error event). Counted; not retried: the same request would meet it again."""
    OVERLOADED = "overloaded"
    """The engine cannot take it now (429, 502, 503, 504). Retried elsewhere; not a sign of a broken one."""
    CREDENTIAL = "credential"
    """The engine does not accept the gateway's own key. Retried elsewhere, counted."""
    TIMEOUT = "timeout"
    """A deadline ran out. Counted; not retried: its time is spent."""
    GATEWAY = "gateway"
    """Our own bug or our own end. Never counted against the endpoint."""


PRIORITIES: tuple[str, ...] = ("interactive", "default", "bulk")
"""Valid values of the `X-Priority` header, most urgent first."""


SCRIPTS: tuple[str, ...] = ("latin", "accented", "two_byte", "three_byte", "escaped", "images")
"""What a prompt may be written in: (nearly) all ASCII; ASCII with accents; scripts of two bytes a letter in
UTF-8, such as Cyrillic; of three, such as Chinese; anything as `\\u` escapes; and text with images in it."""


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """One target of an alias: the model to ask, and where. Tried in the order given."""

    model: str
    backend: str | None = None
    quant: str | None = None


class RequestFacts(msgspec.Struct, frozen=True, kw_only=True):
    """All that admission and placement may know of a request."""

    request_id: str
    kind: str
    """What is asked for; an endpoint serves it when `Capabilities.endpoints` names it."""
    via: str | None = None
    """The kind that it can be translated to, for endpoints that do not serve it themselves."""
    model: str
    tenant: str = "default"
    backend: str | None = None
    """From `X-Backend`; `None` lets the router choose."""
    allowed_backends: frozenset[str] | None = None
    """The backends that the key may use; `None` means all."""
    quant: str | None = None
    """From `X-Quant`; `None` lets the router choose."""
    allowed_quants: frozenset[str] | None = None
    """The quantizations that the key may use; `None` means all."""
    prefer: bool = False
    """`backend` and `quant` are wishes: where no healthy endpoint has them, another may serve."""
    choices: tuple[Choice, ...] = ()
    """Targets of the alias that `model` names, in order; empty when it names a model."""
    priority: str = "default"
    """One of `PRIORITIES`."""
    session: str | None = None
    """Requests of one session go to the same endpoint while it has room."""
    stream: bool = False
    prompt_tokens_estimate: int = 0
    max_tokens: int | None = None
    script: str = "latin"
    """What the prompt is written in, one of `SCRIPTS`: how many bytes a token has depends on it."""
    body_bytes: int = 0
    """What is held in memory while it waits."""
    needs: frozenset[str] = frozenset()
    """Names of boolean fields of `Capabilities` that the request uses, e.g. `{"logprobs", "tools"}`."""
    ttft_budget_s: float | None = None
    """Seconds to the first token after which the answer is worth nothing to the client; overrides its
    class's. From a header."""
    weight: float = 1.0
    """The tenant's: what it gets of a contended endpoint, compared with others."""
    guided: bool = False
    """The answer is held to a grammar or a schema."""
    prefix: tuple[int, ...] = ()
    """The hash chain of the prompt, a 64-bit number for each block of its bytes, each depending on all before
    it; empty when unknown."""
    prefix_block_tokens: int = 64
    """About how many tokens one number stands for."""
    repeatable: bool = False
    """It may be computed twice at once: that has no effect but an answer."""


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
