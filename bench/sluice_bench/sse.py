"""Server-sent events out of a finished body, with the byte position that completes each.

Follows the WHATWG rules: lines end in LF, CRLF or CR; comments are skipped; several `data` lines join with
LF; an event without data is none; an event cut off before its blank line is dropped. Knows no JSON.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

_LINE = re.compile(rb"([^\r\n]*)(\r\n|\n|\r)")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Event(msgspec.Struct, frozen=True):
    """One event."""

    data: bytes
    name: bytes
    """Of its `event` line; empty when there was none."""
    end: int
    """Position of the last byte of the blank line that completed it: its arrival is the event's."""
    n_bytes: int
    """Length on the stream, since the end of the event (or comment block) before it."""


def events(body: bytes) -> Iterator[Event]:
    """All complete events of `body`, in order."""
    data: list[bytes] = []
    name = b""
    position = block_start = len(_BYTE_ORDER_MARK) if body.startswith(_BYTE_ORDER_MARK) else 0
    while match := _LINE.match(body, position):
        position = match.end()
        line = match.group(1)
        if line:
            field, value = _field(line)
            if field == b"data":
                data.append(value)
            elif field == b"event":
                name = value
            continue
        if data:
            yield Event(b"\n".join(data), name, position - 1, position - block_start)
        data, name, block_start = [], b"", position


def _field(line: bytes) -> tuple[bytes, bytes]:
    """Name and value; a comment has the empty name."""
    field, _, value = line.partition(b":")
    return field, value[1:] if value.startswith(b" ") else value
