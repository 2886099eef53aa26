"""What a run and its client processes say to each other, over the processes' standard input and output.

    run → process     Assignment           process → run     Ready, or Refused and the end
                      WhatTimeIsIt                           TimeIs
                      StartAt                                Progress, once a second; Finished
                      HandIn                                 Records

Requests hold keys, so they go through the pipe, and never through a file or a command line. A frame is its
length in four bytes, the lowest first, and a message as MessagePack.
"""

from __future__ import annotations

import msgspec

from sluice_bench.runs.live import LiveCounts
from sluice_bench.runs.shard import ShardRecords, ShardTask

LENGTH_BYTES = 4


class WhatTimeIsIt(msgspec.Struct, frozen=True, tag=True):
    """On your monotonic clock."""


class StartAt(msgspec.Struct, frozen=True, tag=True):
    """Begin at this instant of it."""

    at_ns: int


class HandIn(msgspec.Struct, frozen=True, tag=True):
    """All have finished: parse, and send what you have."""


class Assignment(msgspec.Struct, frozen=True, tag=True):
    """The first message."""

    task: ShardTask


ToShard = Assignment | WhatTimeIsIt | StartAt | HandIn


class Ready(msgspec.Struct, frozen=True, tag=True):
    """Connections are open."""


class Refused(msgspec.Struct, frozen=True, tag=True):
    """The server is not there."""

    message: str


class TimeIs(msgspec.Struct, frozen=True, tag=True):
    """Nanoseconds."""

    at_ns: int


class Progress(msgspec.Struct, frozen=True, tag=True):
    """How it goes."""

    counts: LiveCounts


class Finished(msgspec.Struct, frozen=True, tag=True):
    """Everything has ended. Nothing is parsed yet, so that a process that still runs is not disturbed."""


class Records(msgspec.Struct, frozen=True, tag=True):
    """The last message."""

    found: ShardRecords


FromShard = Ready | Refused | TimeIs | Progress | Finished | Records


def frame(message: ToShard | FromShard) -> bytes:
    """A message for the pipe."""
    body = msgspec.msgpack.encode(message)
    return len(body).to_bytes(LENGTH_BYTES, "little") + body


def to_shard(body: bytes) -> ToShard:
    """Raises `msgspec.DecodeError`."""
    message: ToShard = msgspec.msgpack.decode(body, type=ToShard)
    return message


def from_shard(body: bytes) -> FromShard:
    """Raises `msgspec.DecodeError`."""
    message: FromShard = msgspec.msgpack.decode(body, type=FromShard)
    return message
