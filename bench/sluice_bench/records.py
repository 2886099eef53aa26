"""What is kept of one request: raw time stamps, never a computed metric.

All `*_ns` are nanoseconds on one monotonic clock (`time.perf_counter_ns`). A stamp that was never reached is
`None`. Metrics are computed from these in `metrics.py`, so that a definition can change without a new run.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

import msgspec


class Failure(StrEnum):
    """Why a request did not end well. Every scheduled request is either complete or has exactly one."""

    NOT_SENT = "not_sent"
    """The run's hard stop came before its turn."""
    CUT_OFF = "cut_off"
    """In flight at the run's hard stop."""
    CONNECT_FAILED = "connect_failed"
    """No connection; nothing was sent."""
    TIMEOUT = "timeout"
    """Longer than the request time limit."""
    CONNECTION_LOST = "connection_lost"
    """The peer closed or reset before the response was complete."""
    PROTOCOL = "protocol"
    """Not HTTP/1.1, not SSE with JSON, or not an OpenAI answer."""
    HTTP_STATUS = "http_status"
    """A complete response whose status is not 2xx."""
    STREAM_ERROR = "stream_error"
    """An error event inside a 200 stream."""
    TRUNCATED = "truncated"
    """The stream's HTTP framing ended well, but without `[DONE]`."""

    CLIENT_LOST = "client_lost"
    """The client process that was to send it ended before it told what became of it."""


class TokenSource(StrEnum):
    """Where the number of tokens of each chunk comes from, best first."""

    LOGPROBS = "logprobs"
    """Counted in the chunk's own log-probabilities: exact."""
    RUNNING_USAGE = "running_usage"
    """Differences of a usage object in every chunk: exact."""
    USAGE_SPREAD = "usage_spread"
    """The final usage total, shared out over the chunks by text length: exact in sum."""
    CHUNKS = "chunks"
    """No usage: one token a chunk. A lower bound when the server packs several."""
    USAGE = "usage"
    """A plain answer: only the total is known."""
    NONE = "none"
    """No tokens, or no way to tell."""


class Chunk(msgspec.Struct, frozen=True, array_like=True):
    """One streamed event that carried text."""

    arrived_ns: int
    n_tokens: int
    n_bytes: int


Phase = Literal["warm_up", "measured"]


class RequestRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One request of a run, complete or failed."""

    index: int
    item: str = ""
    """Id of the workload's item that was asked."""
    shard: int = 0
    """Which client process sent it. Stamps of several are comparable: a machine has one monotonic clock."""
    phase: Phase = "measured"
    stream: bool
    scheduled_ns: int
    """When the workload wanted it sent (closed loop: when a worker was free for it)."""
    dispatched_ns: int | None = None
    """When the client turned to it."""
    connected_ns: int | None = None
    """When it had a connection; close to `dispatched_ns` on a reused one."""
    written_ns: int | None = None
    """Just before its bytes went to the socket's transport."""
    headers_ns: int | None = None
    first_byte_ns: int | None = None
    first_choice_ns: int | None = None
    """Arrival of the first event with a choice, be its delta empty: what vLLM's client calls first token."""
    first_token_ns: int | None = None
    """Arrival of the first event with text. `None` for plain answers, whose tokens all come at the end."""
    first_answer_ns: int | None = None
    """Arrival of the first event with text that is not reasoning."""
    last_token_ns: int | None = None
    """Arrival of the last event with text; of a plain answer, its end."""
    end_ns: int | None = None
    """Last byte of the response, or the moment of failure."""
    failure: Failure | None = None
    message: str = ""
    """What failed, in words."""
    status: int | None = None
    reused_connection: bool = False
    n_reads: int = 0
    """Reads from the socket; with more events than reads, the server or a proxy joined events."""
    n_events: int = 0
    """SSE events with data, `[DONE]` included."""
    chunks: tuple[Chunk, ...] = ()
    token_source: TokenSource = TokenSource.NONE
    n_choices: int = 1
    asked_tokens: int | None = None
    """`max_tokens` of the request; an answer of another length did other work than was asked."""
    prompt_tokens: int | None = None
    """From the server's usage object."""
    output_tokens: int | None = None
    """From usage, else the sum over chunks."""
    cached_tokens: int | None = None
    finish_reason: str | None = None
    text_bytes: int = 0
    """UTF-8 bytes of generated text."""
    text_sha256: str = ""
    """Of the generated text (`generated_text.py`), hexadecimal; empty when there is none."""
    backend: str = ""
    """Who served it, as Sluice's gateway says in `x-sluice-backend`."""
