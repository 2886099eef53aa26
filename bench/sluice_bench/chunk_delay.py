"""How late the chunks of many streams arrive, from the stamps that the null server puts into them.

A chunk has two delays: from its due time on the null server's schedule (what a reader sees: lateness of the
null server, gateway, loopback and client together) and from the moment it was sent (without the null
server's lateness). Clocks are compared across processes, so sender and reader must be on one machine, whose
monotonic clock they share. Only chunks that were due while **every** stream was running count.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import msgspec

from sluice_bench.connection import Exchange
from sluice_bench.http_wire import HttpWireError, TimedResponse, parse_response

_STAMPED = re.compile(rb'"content": ?"(\d+) (\d+)"')
_DONE = b"data: [DONE]"


class StampedChunk(msgspec.Struct, frozen=True, array_like=True):
    """One text event; nanoseconds of the monotonic clock."""

    due_ns: int
    sent_ns: int
    arrived_ns: int


class StampedStream(msgspec.Struct, frozen=True):
    """One stream; `failure` is empty when it was complete."""

    chunks: list[StampedChunk]
    failure: str


def read_stream(exchange: Exchange) -> StampedStream:
    """The stamped chunks of a stream. Never raises: what cannot be read is a failure."""
    try:
        response = parse_response(exchange.reads, closed=exchange.closed)
    except HttpWireError as error:
        return StampedStream([], f"protocol: {error}")
    if response is None:
        return StampedStream([], f"{exchange.failure or 'no answer'} {exchange.detail}".strip())
    if response.head.status != 200:
        return StampedStream([], f"status {response.head.status}: {response.body.data[:200]!r}")
    return StampedStream(_chunks(response), _failure(exchange, response))


def _failure(exchange: Exchange, response: TimedResponse) -> str:
    if exchange.failure is not None:
        return f"{exchange.failure} {exchange.detail}".strip()
    if not response.complete or _DONE not in response.body.data[-64:]:
        return f"cut off: {response.body.data[-200:]!r}"
    return ""


def _chunks(response: TimedResponse) -> list[StampedChunk]:
    body = response.body
    found = []
    for match in _STAMPED.finditer(body.data):
        end = body.data.find(b"\n\n", match.end()) + 1
        if end > 0:
            found.append(StampedChunk(int(match[1]), int(match[2]), body.arrival_ns(end)))
    return found


def while_all_ran(streams: Sequence[StampedStream]) -> list[StampedChunk]:
    """Chunks that were due after the last stream had begun and before the first one ended."""
    running = [stream.chunks for stream in streams if stream.chunks]
    if not running:
        return []
    start = max(chunks[0].due_ns for chunks in running)
    end = min(chunks[-1].due_ns for chunks in running)
    return [chunk for chunks in running for chunk in chunks if start <= chunk.due_ns <= end]


def due_delays_ms(chunks: Iterable[StampedChunk]) -> list[float]:
    """Arrival minus due time."""
    return [(chunk.arrived_ns - chunk.due_ns) / 1e6 for chunk in chunks]


def sent_delays_ms(chunks: Iterable[StampedChunk]) -> list[float]:
    """Arrival minus sending."""
    return [(chunk.arrived_ns - chunk.sent_ns) / 1e6 for chunk in chunks]
