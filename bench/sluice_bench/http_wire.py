"""HTTP/1.1 responses: where one ends (hot path), and what it said and when (after the run).

`ResponseEnd` is all that runs while a response streams in: it parses the head once, then counts bytes, of a
chunked body by jumping from size to size. It keeps none of the body: the reads are recorded already, and a
second copy would double the memory of a run. `parse_response` does the real work later, from the recorded
reads, and keeps for every body byte the time stamp of the read that brought it.

Knows nothing of SSE, JSON or tokens. Source of the rules: RFC 9112 sections 4, 6 and 7.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import lru_cache

import msgspec

MAX_HEAD_BYTES = 64 * 1024
"""A longer response head is refused, so that a broken server cannot grow the buffer without end."""

_LAST_BYTES = b"\r\n\r\n"
"""Every complete chunked body ends so: the end of the zero chunk's line or of its trailers."""

_HEX_DIGITS = b"0123456789abcdefABCDEF"


class HttpWireError(Exception):
    """The peer's bytes are not a valid HTTP/1.1 response."""


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """A response head."""

    status: int
    headers: dict[bytes, bytes]
    """Lower-case names; of a repeated header the last value."""
    keep_alive: bool
    length: int | None
    """Body bytes when known from the head."""
    chunked: bool


def parse_head(raw: bytes) -> Head:
    """Parse a head without its final blank line. Raises `HttpWireError`."""
    lines = raw.split(b"\r\n")
    version, _, rest = lines[0].partition(b" ")
    if not version.startswith(b"HTTP/1.") or not rest[:3].isdigit():
        raise HttpWireError(f"not an HTTP/1.1 status line: {lines[0][:80]!r}")
    status = int(rest[:3])
    headers = _parse_fields(lines[1:])
    chunked = headers.get(b"transfer-encoding", b"").lower().endswith(b"chunked")
    connection = headers.get(b"connection", b"").lower()
    persistent = version != b"HTTP/1.0" or b"keep-alive" in connection
    return Head(
        status=status,
        headers=headers,
        keep_alive=persistent and b"close" not in connection,
        length=_body_length(status, headers, chunked),
        chunked=chunked,
    )


def _parse_fields(lines: Sequence[bytes]) -> dict[bytes, bytes]:
    fields: dict[bytes, bytes] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon:
            raise HttpWireError(f"not a header line: {line[:80]!r}")
        fields[name.strip().lower()] = value.strip()
    return fields


def _body_length(status: int, headers: dict[bytes, bytes], chunked: bool) -> int | None:
    if status in (204, 304):
        return 0
    length = headers.get(b"content-length")
    if chunked or length is None:
        return None
    if not length.isdigit():
        raise HttpWireError(f"content-length is not a number: {length[:40]!r}")
    return int(length)


def split_head(data: bytes) -> tuple[Head, int] | None:
    """The final response's head and where its body starts, or `None` while incomplete; skips 1xx heads."""
    start = 0
    while True:
        end = data.find(b"\r\n\r\n", start)
        if end < 0:
            if len(data) - start > MAX_HEAD_BYTES:
                raise HttpWireError(f"response head is longer than {MAX_HEAD_BYTES} bytes")
            return None
        head = parse_head(data[start:end])
        start = end + 4
        if head.status >= 200:
            return head, start


class ChunkedEnd:
    """Follows the chunk sizes of a body from read to read; keeps nothing but a size line that was cut."""

    def __init__(self) -> None:
        self.ended = False
        self.surplus = False
        """Bytes came after the end."""
        self._skip = 0
        """Bytes of the current chunk that are still to come, its closing line break included."""
        self._line = b""
        """Of the next size line (or the last one and its trailers), what has come."""

    def feed(self, data: bytes) -> bool:
        """Take one read; true at the end. Raises `HttpWireError` where chunks are not as their sizes say."""
        length = len(data)
        if self._skip >= length:
            self._skip -= length
            return False
        position, self._skip = self._skip, 0
        if self._line:
            data, position, self._line = self._line + data, 0, b""
            length = len(data)
        while position < length:
            line_end = data.find(b"\r\n", position)
            size = _chunk_size(data[position:line_end]) if line_end >= 0 else 0
            if size == 0:
                self._end_or_keep(data, position, line_end)
                return self.ended
            position = line_end + size + 4
            if position <= length and data[position - 2 : position] != b"\r\n":
                raise HttpWireError("chunk does not end where its size says")
        self._skip = position - length
        return False

    def _end_or_keep(self, data: bytes, position: int, line_end: int) -> None:
        """Half a size line, or the zero chunk: optional trailer lines, then a blank line."""
        end = data.find(_LAST_BYTES, line_end) if line_end >= 0 else -1
        if end >= 0:
            self.ended, self.surplus = True, end + 4 < len(data)
            return
        self._line = data[position:]
        if len(self._line) > MAX_HEAD_BYTES:
            raise HttpWireError(f"chunk size line or trailers are longer than {MAX_HEAD_BYTES} bytes")


@lru_cache(maxsize=4096)  # on the hot path, and a stream has few different ones
def _chunk_size(line: bytes) -> int:
    digits = line.split(b";", 1)[0].strip()
    if not digits or digits.strip(_HEX_DIGITS):  # `int` would take a sign, and a walk would go backwards
        raise HttpWireError(f"not a chunk size: {line[:40]!r}")
    return int(digits, 16)


class ResponseEnd:
    """Tells when a response is complete; fed every read in order. Keeps no body."""

    def __init__(self) -> None:
        self.head: Head | None = None
        self.feed: Callable[[bytes], bool] = self._feed_head
        """Take one read; true when the response is complete. Raises `HttpWireError`. Changes with the head,
        so that a read of a body costs one call."""
        self._head_bytes = b""
        self._received = 0
        self._chunks = ChunkedEnd()

    def _feed_head(self, data: bytes) -> bool:
        self._head_bytes += data
        split = split_head(self._head_bytes)
        if split is None:
            return False
        self.head, start = split
        data, self._head_bytes = self._head_bytes[start:], b""
        self.feed = self._chunks.feed if self.head.chunked else self._feed_counted
        return self.feed(data)

    def _feed_counted(self, data: bytes) -> bool:
        self._received += len(data)
        length = None if self.head is None else self.head.length
        return length is not None and self._received >= length

    def at_eof(self) -> bool:
        """Whether the response is complete if the peer closes now."""
        head = self.head
        return head is not None and not head.chunked and head.length is None

    @property
    def keep_alive(self) -> bool:
        """Whether the connection may carry another request after this response."""
        head = self.head
        if head is None or not head.keep_alive or self._chunks.surplus:
            return False
        return head.chunked or self._received == head.length


class TimedBody:
    """A response's body without framing, with the arrival time of each byte."""

    def __init__(
        self, wire: bytes, reads: Sequence[tuple[int, bytes]], wire_segments: Sequence[tuple[int, int]]
    ) -> None:
        """`wire` are the bytes of all reads together; the body is its segments (start, end)."""
        self._read_ends = _running_total([len(data) for _, data in reads])
        self._stamps = [stamp for stamp, _ in reads]
        self._wire_starts = [start for start, _ in wire_segments]
        self._starts = [0, *_running_total([end - start for start, end in wire_segments])][:-1]
        self.data = b"".join(wire[start:end] for start, end in wire_segments)
        """The body."""

    def arrival_ns(self, position: int) -> int:
        """Time stamp of the read that brought body byte `position`."""
        segment = bisect_right(self._starts, position) - 1
        wire_position = self._wire_starts[segment] + position - self._starts[segment]
        return self._stamps[bisect_right(self._read_ends, wire_position)]


def _running_total(sizes: Sequence[int]) -> list[int]:
    total, ends = 0, []
    for size in sizes:
        total += size
        ends.append(total)
    return ends


class TimedResponse(msgspec.Struct, frozen=True):
    """A response parsed after the run."""

    head: Head
    headers_ns: int
    """When the head was complete."""
    body: TimedBody
    complete: bool
    """False for a cut response: the body is what arrived."""


def parse_response(reads: Sequence[tuple[int, bytes]], *, closed: bool) -> TimedResponse | None:
    """Parse recorded reads `(ns, bytes)`; `None` when no whole head arrived.

    `closed` says that the peer ended the connection after these reads, which is how a body without a length
    ends. Raises `HttpWireError`.
    """
    wire = b"".join(data for _, data in reads)
    split = split_head(wire)
    if split is None:
        return None
    head, start = split
    headers_ns = TimedBody(wire, reads, [(0, start)]).arrival_ns(start - 1)
    segments, complete = _body_segments(head, wire, start, closed)
    return TimedResponse(head, headers_ns, TimedBody(wire, reads, segments), complete)


def _body_segments(head: Head, wire: bytes, start: int, closed: bool) -> tuple[list[tuple[int, int]], bool]:
    if head.chunked:
        return _chunk_segments(wire, start)
    if head.length is None:
        return [(start, len(wire))], closed
    end = min(start + head.length, len(wire))
    return [(start, end)], end == start + head.length


def _chunk_segments(wire: bytes, position: int) -> tuple[list[tuple[int, int]], bool]:
    """(start, end) of the payload of each whole chunk, and whether the last one came."""
    segments: list[tuple[int, int]] = []
    while (line_end := wire.find(b"\r\n", position)) >= 0:
        size = _chunk_size(wire[position:line_end])
        if size == 0:
            return segments, wire.find(_LAST_BYTES, line_end) >= 0
        payload, end = line_end + 2, line_end + 2 + size
        if end + 2 > len(wire):
            break
        if wire[end : end + 2] != b"\r\n":
            raise HttpWireError("chunk does not end where its size says")
        segments.append((payload, end))
        position = end + 2
    return segments, False
