"""Server-sent events as bytes: an incremental splitter that loses and changes nothing.

Invariant: the concatenation of everything `feed` and `flush` return equals the bytes fed, and where the cuts
fall does not depend on how the bytes were chunked. An event here is the bytes up to and including the blank
line that ends it (lines may end in LF, CR LF or CR); a comment block counts as one. Source: the HTML
standard, section "Server-sent events".
"""

from __future__ import annotations

import re

_BLANK_LINE = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_LINE_END = re.compile(rb"\r\n|\n|\r")
_LOOK_BACK = 3
"""A blank line is at most four bytes, so three of it may have been there before."""

MAX_EVENT_BYTES = 1 << 20
"""A longer event is passed on in pieces that nobody parses."""

DONE = b"[DONE]"


class Splitter:
    """Cuts a byte stream into events."""

    __slots__ = ("_searched", "pending")

    def __init__(self) -> None:
        self.pending = b""
        """The beginning of an event whose end has not come."""
        self._searched = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """The events that `chunk` completes, in order."""
        if not self.pending and _is_one_event(chunk):
            return [chunk]
        data = self.pending + chunk if self.pending else chunk
        events, start, search = [], 0, max(0, self._searched - _LOOK_BACK)
        while True:
            end = _event_end(data, search)
            if end is None:
                break
            events.append(data[start:end])
            start = search = end
        rest = data[start:] if start else data
        if len(rest) > MAX_EVENT_BYTES:
            events.append(rest)
            rest = b""
        self.pending, self._searched = rest, len(rest)
        return events

    def flush(self) -> bytes:
        """What is left when the stream has ended: an incomplete event, usually nothing."""
        rest, self.pending, self._searched = self.pending, b"", 0
        return rest


def _is_one_event(chunk: bytes) -> bool:
    """Whether a chunk is one whole event with plain line feeds, as most are. May say no too often."""
    return chunk.find(b"\n\n") == len(chunk) - 2 and chunk.find(b"\r") < 0 and len(chunk) > 2


def _event_end(data: bytes, search: int) -> int | None:
    """Where the first event that ends at or after `search` is over."""
    match = _BLANK_LINE.search(data, search)
    if match is None:
        return None
    end = match.end()
    if end == len(data) and data[end - 1] == 0x0D:
        return None  # a line feed may follow and belong to this line end
    return end


def event_data(event: bytes) -> bytes | None:
    """The event's data, its lines joined by LF; `None` when it has none (a comment, a retry hint)."""
    if event.startswith(b"data: ") and event.find(b"\n") == len(event) - 2 and b"\r" not in event:
        return event[6:-2]
    lines = [_field_value(line) for line in _LINE_END.split(event) if line == b"data" or line[:5] == b"data:"]
    return b"\n".join(lines) if lines else None


def _field_value(line: bytes) -> bytes:
    value = line[5:]
    return value[1:] if value[:1] == b" " else value
