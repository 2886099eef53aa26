"""Where a response ends, and when each of its bytes came, however the network cuts it."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice_bench.http_wire import HttpWireError, ResponseEnd, parse_response

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

nasty = st.sampled_from([b"0\r\n\r\n", b"\r\n\r\n", b"\r\n0\r\n\r\n", b"data: 10\r\n\r\n", b"5\r\n"])
payloads = st.lists(st.one_of(nasty, st.binary(min_size=1, max_size=30)), max_size=8)


def chunked(parts: list[bytes], trailer: bytes = b"") -> bytes:
    body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    return CHUNKED + body + b"0\r\n" + trailer + b"\r\n"


def cut(wire: bytes, cuts: list[int]) -> list[bytes]:
    ends = sorted({end % len(wire) for end in cuts} | {len(wire)})
    return [wire[a:b] for a, b in zip([0, *ends], ends, strict=False) if a < b]


@given(payloads, st.lists(st.integers(1, 500), max_size=12), st.sampled_from([b"", b"X-Sum: 1\r\n"]))
def test_a_chunked_response_ends_with_its_last_byte_and_not_before(
    parts: list[bytes], cuts: list[int], trailer: bytes
) -> None:
    reads = cut(chunked(parts, trailer), cuts)
    end = ResponseEnd()
    verdicts = [end.feed(read) for read in reads]
    assert verdicts == [False] * (len(reads) - 1) + [True]
    assert end.keep_alive


@given(payloads, st.lists(st.integers(1, 500), max_size=12))
def test_every_body_byte_has_the_stamp_of_the_read_that_brought_it(
    parts: list[bytes], cuts: list[int]
) -> None:
    wire = chunked(parts)
    reads = list(enumerate(cut(wire, cuts)))
    response = parse_response(reads, closed=False)
    assert response is not None and response.complete
    assert response.body.data == b"".join(parts)
    stamp_of_wire_byte = [stamp for stamp, data in reads for _ in data]
    wire_position = len(CHUNKED)
    body_position = 0
    for part in parts:
        wire_position += len(b"%x\r\n" % len(part))
        for offset in range(len(part)):
            assert (
                response.body.arrival_ns(body_position + offset) == stamp_of_wire_byte[wire_position + offset]
            )
        body_position += len(part)
        wire_position += len(part) + 2


def test_a_long_body_is_not_kept_a_second_time() -> None:
    event = b"data: " + b"x" * 1000 + b"\r\n\r\n"
    reads = [CHUNKED, *(b"%x\r\n%b\r\n" % (len(event), event) for _ in range(2000)), b"0\r\n\r\n"]
    end = ResponseEnd()
    tracemalloc.start()
    try:
        verdicts = [end.feed(read) for read in reads]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert verdicts[-1] and not any(verdicts[:-1])
    assert peak < 100_000  # of two megabytes


@pytest.mark.parametrize(
    "wire",
    [
        CHUNKED + b"1\r\na\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\naHTTP/1.1 200 OK\r\n",
    ],
)
def test_a_connection_that_says_more_than_was_asked_is_not_kept(wire: bytes) -> None:
    end = ResponseEnd()
    assert end.feed(wire)
    assert not end.keep_alive


@pytest.mark.parametrize("cuts", [[], [60]])
def test_trailers_without_end_are_an_error(cuts: list[int]) -> None:
    end = ResponseEnd()
    with pytest.raises(HttpWireError, match="longer than"):
        for read in cut(CHUNKED + b"0\r\n" + b"x" * 70_000, cuts):
            end.feed(read)


def test_a_body_with_a_length_ends_after_that_many_bytes() -> None:
    end = ResponseEnd()
    assert not end.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")
    assert not end.feed(b"cd")
    assert end.feed(b"e")
    assert end.keep_alive and not end.at_eof()


def test_a_body_without_a_length_ends_when_the_peer_closes() -> None:
    wire = b"HTTP/1.1 200 OK\r\n\r\nabc"
    end = ResponseEnd()
    assert not end.feed(wire)
    assert end.at_eof() and not end.keep_alive
    still_open, closed = parse_response([(1, wire)], closed=False), parse_response([(1, wire)], closed=True)
    assert still_open is not None and not still_open.complete
    assert closed is not None and closed.complete and closed.body.data == b"abc"


@pytest.mark.parametrize(
    "head",
    [b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.0 204 None\r\n\r\n"],
)
def test_a_connection_that_the_peer_will_close_is_not_kept(head: bytes) -> None:
    end = ResponseEnd()
    assert end.feed(head)
    assert not end.keep_alive


def test_an_interim_response_is_not_the_answer() -> None:
    wire = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"
    response = parse_response([(7, wire[:30]), (9, wire[30:])], closed=False)
    assert response is not None and response.head.status == 204
    assert response.headers_ns == 9


@pytest.mark.parametrize(
    "wire",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        CHUNKED + b"zz\r\n\r\n",
        CHUNKED + b"-8\r\n\r\n",
        CHUNKED + b"\r\n\r\n",
        CHUNKED + b"3\r\nabcdefg\r\n\r\n",
        b"x" * 70_000,
    ],
)
def test_bytes_that_are_not_http_are_an_error(wire: bytes) -> None:
    with pytest.raises(HttpWireError):
        ResponseEnd().feed(wire)
    with pytest.raises(HttpWireError):
        parse_response([(1, wire)], closed=True)


def test_half_a_head_is_no_response_yet() -> None:
    assert parse_response([(1, b"HTTP/1.1 200 OK\r\nContent")], closed=True) is None
