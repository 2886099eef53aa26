"""Hypothesis strategies: any valid HTTP/1.1 response, and what a broken engine might send instead."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import strategies as st

from .scripted_server import pieces_of

_TOKEN = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.~!#$%&'*+^`|", min_size=1)
_VALUE_BYTES = st.sampled_from([*range(0x21, 0x7F), *range(0x80, 0x100), 0x20, 0x09])
_VALUES = st.lists(_VALUE_BYTES, max_size=30).map(bytes).filter(lambda value: value == value.strip(b" \t"))
_FRAMING_NAMES = {"content-length", "transfer-encoding", "connection", "upgrade", "keep-alive"}
_NAMES = _TOKEN.filter(lambda name: name.lower() not in _FRAMING_NAMES and len(name) <= 40)
_HEADERS = st.lists(st.tuples(_NAMES.map(str.encode), _VALUES), max_size=6)
_PADDING = st.sampled_from([b"", b" ", b"  ", b"\t"])
_REASONS = st.sampled_from([b"OK", b"", b"Not Found At All", b"\xe9t\xe9"])
_BODIES = st.lists(st.binary(min_size=1, max_size=200), max_size=6)


class Generated(NamedTuple):
    """A valid response on the wire, cut into pieces, and what a client must make of it."""

    method: str
    pieces: tuple[bytes, ...]
    closes: bool
    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


@st.composite
def valid_responses(draw: st.DrawFn) -> Generated:
    """Any status, headers, framing, chunk sizes, extensions, trailers, interim responses and cuts."""
    method = draw(st.sampled_from(["POST", "POST", "GET", "HEAD"]))
    status = draw(st.one_of(st.sampled_from([200, 204, 304, 400, 500]), st.integers(200, 599)))
    bodiless = method == "HEAD" or status in (204, 304)
    blocks = draw(_BODIES)
    headers = draw(_HEADERS)
    framing = draw(st.sampled_from(["length", "chunked", "close"]))
    payload, framing_header = _framed(draw, framing, blocks)
    if framing_header and status != 204:
        headers.insert(draw(st.integers(0, len(headers))), framing_header)
    interims = b"".join(draw(st.lists(_interims(), max_size=2)))
    head = _head(draw, status, headers)
    wire = interims + head + (b"" if bodiless else payload)
    cuts = draw(st.lists(st.integers(0, len(wire)), max_size=8))
    return Generated(
        method=method,
        pieces=tuple(pieces_of(wire, cuts)),
        closes=framing == "close" and not bodiless,
        status=status,
        headers=tuple((name.lower(), value) for name, value in headers),
        body=b"" if bodiless else b"".join(blocks),
    )


@st.composite
def _interims(draw: st.DrawFn) -> bytes:
    return _head(draw, draw(st.sampled_from([100, 102, 103])), draw(_HEADERS))


def _head(draw: st.DrawFn, status: int, headers: list[tuple[bytes, bytes]]) -> bytes:
    lines = [b"HTTP/1.1 %d %s\r\n" % (status, draw(_REASONS))]
    lines += [_header(draw, name, value) for name, value in headers]
    return b"".join(lines) + b"\r\n"


def _header(draw: st.DrawFn, name: bytes, value: bytes) -> bytes:
    after = draw(_PADDING)
    if name == b"Transfer-Encoding":
        after = after.replace(b"\t", b"")  # Refused: see test_response.
    return b"%s:%s%s%s\r\n" % (name, draw(_PADDING), value, after)


def _framed(draw: st.DrawFn, framing: str, blocks: list[bytes]) -> tuple[bytes, tuple[bytes, bytes] | None]:
    body = b"".join(blocks)
    if framing == "close":
        return body, None
    if framing == "length":
        return body, (b"Content-Length", b"%d" % len(body))
    chunks = [b"%s%s\r\n%s\r\n" % (_size(draw, len(block)), _extension(draw), block) for block in blocks]
    trailers = b"".join(b"%s: %s\r\n" % trailer for trailer in draw(_HEADERS))
    return b"".join(chunks) + b"0\r\n" + trailers + b"\r\n", (b"Transfer-Encoding", b"chunked")


def _size(draw: st.DrawFn, size: int) -> bytes:
    return draw(st.sampled_from([b"%x", b"%X", b"0%x", b"000%x"])) % size


def _extension(draw: st.DrawFn) -> bytes:
    return draw(st.sampled_from([b"", b"", b";name", b";name=value", b';name="quoted"']))


@st.composite
def broken_responses(draw: st.DrawFn) -> tuple[bytes, ...]:
    """Pieces of a valid response with damage done to it, or no response at all."""
    wire = draw(st.one_of(_damaged(), st.binary(max_size=300)))
    return tuple(pieces_of(wire, draw(st.lists(st.integers(0, len(wire)), max_size=4))))


@st.composite
def _damaged(draw: st.DrawFn) -> bytes:
    wire = b"".join(draw(valid_responses()).pieces)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(wire)))
        until = min(len(wire), at + draw(st.integers(0, 12)))
        filling = draw(st.one_of(st.sampled_from(_SPANNERS), st.binary(max_size=6)))
        wire = wire[:at] + filling + wire[until:]
    return wire


_SPANNERS = [
    b"",
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b": ",
    b"\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n",
    b"Content-Length: 3\r\n",
    b"Content-Length: 99999999999999999999\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: gzip\r\n",
    b"Connection: upgrade\r\nUpgrade: h2c\r\n",
    b"Connection: close\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    b"0\r\n\r\n",
    b"ffffffffffffffff\r\n",
    b"-1\r\n",
]
