"""HTTP/1.1 responses: where one ends (hot path), and what it said and when (after the run).

`ResponseEnd` is all that runs while a response streams in: it parses the head once, then counts bytes. Of a
chunked body it looks only at the last four bytes of a read; only when they could be the end does it walk the
chunk sizes, from where it last stopped. `parse_response` does the real work later, from the recorded reads,
and keeps for every body byte the time stamp of the read that brought it.

Knows nothing of SSE, JSON or tokens. Source of the rules: RFC 9112 sections 4, 6 and 7.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

import msgspec

MAX_HEAD_BYTES = 64 * 1024
"""A longer response head is refused, so that a broken server cannot grow the buffer without end."""

_LAST_BYTES = b"\r\n\r\n"
"""Every complete chunked body ends so: the end of the last (zero) chunk's line or of its trailers."""


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


class ChunkWalk:
    """Position in a chunked body; moves forward only over whole chunks."""

    def __init__(self) -> None:
        self.position = 0
        """Of the first byte not yet walked."""
        self.segments: list[tuple[int, int]] = []
        """(start, end) of the payload of each whole chunk."""
        self.ended = False

    def advance(self, body: bytes | bytearray) -> None:
        """Walk as far as whole chunks reach. Raises `HttpWireError` on a bad size line."""
        while not self.ended:
            line_end = body.find(b"\r\n", self.position)
            if line_end < 0:
                return
            size = _chunk_size(bytes(body[self.position : line_end]))
            payload = line_end + 2
            if size == 0:
                self._finish(body, line_end)
                return
            if payload + size + 2 > len(body):
                return
            if body[payload + size : payload + size + 2] != b"\r\n":
                raise HttpWireError("chunk does not end where its size says")
            self.segments.append((payload, payload + size))
            self.position = payload + size + 2

    def _finish(self, body: bytes | bytearray, line_end: int) -> None:
        """The zero chunk: optional trailer lines, then a blank line."""
        end = body.find(_LAST_BYTES, line_end)
        if end >= 0:
            self.ended = True
            self.position = end + 4


def _chunk_size(line: bytes) -> int:
    digits = line.split(b";", 1)[0].strip()
    try:
        return int(digits, 16)
    except ValueError:
        raise HttpWireError(f"not a chunk size: {line[:40]!r}") from None


class ResponseEnd:
    """Tells when a response is complete; fed every read in order."""

    def __init__(self) -> None:
        self.head: Head | None = None
        self._body = bytearray()
        self._received = 0
        self._walk = ChunkWalk()

    def feed(self, data: bytes) -> bool:
        """Take one read; true when the response is complete. Raises `HttpWireError`."""
        if self.head is None:
            self._body += data
            split = split_head(bytes(self._body))
            if split is None:
                return False
            self.head, start = split
            del self._body[:start]
            self._received = len(self._body)
        elif self.head.chunked:
            self._body += data
        else:
            self._received += len(data)
        return self._complete(self.head)

    def at_eof(self) -> bool:
        """Whether the response is complete if the peer closes now."""
        head = self.head
        return head is not None and not head.chunked and head.length is None

    @property
    def keep_alive(self) -> bool:
        """Whether the connection may carry another request after this response."""
        head = self.head
        return head is not None and head.keep_alive and (head.chunked or head.length is not None)

    def _complete(self, head: Head) -> bool:
        if not head.chunked:
            return head.length is not None and self._received >= head.length
        if not self._body.endswith(_LAST_BYTES):
            return False
        self._walk.advance(self._body)
        return self._walk.ended


class TimedBody:
    """A response's body without framing, with the arrival time of each byte."""

    def __init__(self, reads: Sequence[tuple[int, bytes]], wire_segments: Sequence[tuple[int, int]]) -> None:
        wire = b"".join(data for _, data in reads)
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
    headers_ns = TimedBody(reads, [(0, len(wire))]).arrival_ns(start - 1)
    segments, complete = _body_segments(head, wire, start, closed)
    return TimedResponse(head, headers_ns, TimedBody(reads, segments), complete)


def _body_segments(head: Head, wire: bytes, start: int, closed: bool) -> tuple[list[tuple[int, int]], bool]:
    if head.chunked:
        walk = ChunkWalk()
        body = wire[start:]
        walk.advance(body)
        return [(start + low, start + high) for low, high in walk.segments], walk.ended
    if head.length is None:
        return [(start, len(wire))], closed
    end = min(start + head.length, len(wire))
    return [(start, end)], end == start + head.length
