"""One line a request, and the few lines about the gateway's own life. Never a secret, a prompt or an answer.

As JSON for machines, or as text for people at a terminal. Request lines are encoded by hand: the logging
package costs several times the encoding. Everything goes to standard error; standard output belongs to the
banner.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal, TextIO

import msgspec

from sluice_gateway.exchange import Exchange

Format = Literal["auto", "json", "text"]

LOGGER = "sluice"
"""The gateway's own."""
SERVER_LOGGER = "uvicorn.error"
"""uvicorn's, which speaks of connections that it had to cut."""


class RequestLine(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What is logged of one request. Fields that have nothing to say are left out."""

    time: str
    event: str
    request_id: str
    path: str
    status: int
    outcome: str
    duration_ms: float
    cache: str = ""
    key: str = ""
    tenant: str = ""
    model: str = ""
    backend: str = ""
    endpoint: str = ""
    stream: bool = False
    attempts: int = 0
    queue_ms: float | None = None
    ttft_ms: float | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    usage_estimated: bool = False
    """The engine's own count did not come; these are what was seen."""


_GATHER_S = 0.05
_GATHER_LINES = 256
_MAX_MODEL = 128
"""Model names come from clients."""


class RequestLog:
    """Writes request lines. JSON lines are gathered for a moment, since a write costs more than a line."""

    def __init__(self, stream: TextIO, log_format: Format, wall_clock: Callable[[], float]) -> None:
        """`wall_clock` gives seconds since 1970."""
        self._stream = stream
        self._text = wants_text(stream, log_format)
        self._timestamps = _Timestamps(wall_clock)
        self._pending: list[bytes] = []
        self._encoder = msgspec.json.Encoder()
        self._line = RequestLine(
            time="", event="request", request_id="", path="", status=0, outcome="", duration_ms=0.0
        )

    def write(self, exchange: Exchange) -> None:
        """Log a request that has ended."""
        line = self._line
        line.time = self._timestamps.now()
        _fill(line, exchange)
        if self._text:
            self._stream.write(_as_text(line))
            self._stream.flush()
            return
        self._pending.append(self._encoder.encode(line))
        if len(self._pending) == 1:
            asyncio.get_running_loop().call_later(_GATHER_S, self.flush)
        elif len(self._pending) >= _GATHER_LINES:
            self.flush()

    def flush(self) -> None:
        """Write what has been gathered."""
        pending, self._pending = self._pending, []
        if pending:
            self._stream.write((b"\n".join(pending) + b"\n").decode())
            self._stream.flush()


class _Timestamps:
    """The present time as text; formatted once a second."""

    def __init__(self, wall_clock: Callable[[], float]) -> None:
        self._wall_clock = wall_clock
        self._second = -1
        self._text = ""

    def now(self) -> str:
        now = self._wall_clock()
        second = int(now)
        if second != self._second:
            self._second, self._text = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._text}.{int(now * 1000) % 1000:03d}Z"


def wants_text(stream: TextIO, log_format: Format) -> bool:
    """Whether a stream gets text for people."""
    return log_format == "text" or (log_format == "auto" and stream.isatty())


def configure(stream: TextIO, log_format: Format, names: Sequence[str] = (LOGGER,)) -> None:
    """Send what the loggers called `names` say to `stream`, in the same format as the request lines."""
    handler = logging.StreamHandler(stream)
    if wants_text(stream, log_format):
        formatter = logging.Formatter("%(asctime)s  %(levelname)s  %(message)s", "%H:%M:%S")
        formatter.converter = time.gmtime  # as in the request lines
        handler.setFormatter(formatter)
    else:
        handler.setFormatter(_JsonFormatter())
    for name in names:
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(logging.INFO if name == LOGGER else logging.WARNING)


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time": _timestamp(record.created),
            "event": "log",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode(fields).decode()


def _fill(line: RequestLine, exchange: Exchange) -> None:
    """Everything but the time. A line is used again for the next request: making one costs more than this."""
    usage = exchange.usage
    line.request_id = exchange.request_id
    line.path = exchange.path
    line.status = exchange.status
    line.outcome = exchange.outcome
    line.duration_ms = _ms(exchange.duration_s)
    line.key = exchange.key_id
    line.tenant = exchange.tenant
    line.model = exchange.model[:_MAX_MODEL]
    line.backend = exchange.backend
    line.endpoint = exchange.endpoint
    line.stream = exchange.stream
    line.attempts = exchange.attempts
    line.cache = exchange.cache
    line.queue_ms = _ms(exchange.queued_s) if exchange.queued_s else None
    line.ttft_ms = _ms(exchange.first_token_s) if exchange.first_token_s else None
    if usage is None:
        line.prompt_tokens = line.completion_tokens = line.cached_tokens = 0
        line.usage_estimated = False
    else:
        line.prompt_tokens = usage.prompt_tokens
        line.completion_tokens = usage.completion_tokens
        line.cached_tokens = usage.cached_tokens
        line.usage_estimated = not exchange.usage_is_exact


def _as_text(line: RequestLine) -> str:
    parts = [line.time[11:19], str(line.status), line.path, f"{line.duration_ms:.0f} ms"]
    if line.backend:
        parts.append(f"{line.model!r} on {line.endpoint}")
    if line.prompt_tokens or line.completion_tokens:
        parts.append(f"{line.prompt_tokens}+{line.completion_tokens} tokens")
    if line.ttft_ms:
        parts.append(f"first after {line.ttft_ms:.0f} ms")
    if line.outcome != "ok":
        parts.append(line.outcome)
    return "  ".join([*parts, line.request_id]) + "\n"


def _ms(seconds: float) -> float:
    return int(seconds * 1_000_000 + 0.5) / 1000


def _timestamp(seconds: float) -> str:
    """RFC 3339 in UTC, with milliseconds."""
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds * 1000) % 1000:03d}Z"


def standard_error() -> TextIO:
    """Where logs go. Read when asked, since a terminal may be redirected."""
    return sys.stderr
