"""The states that real sockets reach too rarely, on a transport that a test holds in its hand."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sluice_engines.transport import ConnectionLost, DeadlineExceeded, Deadlines
from sluice_gateway.upstream.connection import WRITE_SLICE, Connection
from sluice_gateway.upstream.origin import parse_origin
from sluice_gateway.upstream.pool import ConnectionPool
from sluice_gateway.upstream.response import HttpResponse

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HEAD = b"POST / HTTP/1.1\r\n\r\n"


class FakeTransport(asyncio.Transport):
    """Takes everything until told to be full."""

    def __init__(self, protocol: Connection) -> None:
        super().__init__()
        self.written = bytearray()
        self.unflushed = 0
        self.full = False
        self._closing = False
        self._protocol = protocol

    def write(self, data: Any) -> None:
        self.written += data
        if self.full:
            self._protocol.pause_writing()

    def get_write_buffer_size(self) -> int:
        return self.unflushed

    def is_closing(self) -> bool:
        return self._closing

    def abort(self) -> None:
        self._closing = True


class Bench:
    """A pool, and one connection of it on a fake transport."""

    def __init__(self) -> None:
        self.pool = ConnectionPool(idle_life_s=60.0)
        self.origin = parse_origin("http://engine")
        self.connection = Connection(self.pool, self.origin)
        self.transport = FakeTransport(self.connection)
        self.connection.connection_made(self.transport)
        self.pool.adopt(self.connection)

    def send(self, body: bytes = b"", deadlines: Deadlines | None = None) -> HttpResponse:
        now = asyncio.get_running_loop().time()
        return self.connection.start(HEAD, body, deadlines or Deadlines(), now, head_only=False)

    def close(self) -> None:
        self.connection.connection_lost(None)


@pytest.fixture
async def bench() -> Any:
    made = Bench()
    yield made
    made.close()


async def test_a_small_body_is_one_write(bench: Bench) -> None:
    bench.send(b"{}")
    assert bench.transport.written == HEAD + b"{}"


async def test_a_large_body_waits_for_room(bench: Bench) -> None:
    body = bytes(3 * WRITE_SLICE + 1)
    bench.transport.full = True
    bench.send(body)
    assert len(bench.transport.written) == len(HEAD) + WRITE_SLICE

    bench.connection.resume_writing()
    assert len(bench.transport.written) == len(HEAD) + 2 * WRITE_SLICE

    bench.transport.full = False
    bench.connection.resume_writing()
    assert bench.transport.written == HEAD + body


async def test_a_whole_exchange_rests_in_the_pool(bench: Bench) -> None:
    response = bench.send()
    bench.connection.data_received(OK)
    assert bench.pool.idle_count == 0  # Not before its reader has it.
    assert [chunk async for chunk in response] == [b"ok"]
    assert bench.pool.take(bench.origin) is bench.connection


async def test_an_answer_before_the_last_slice_ends_the_connection(bench: Bench) -> None:
    bench.transport.full = True
    response = bench.send(bytes(3 * WRITE_SLICE))
    bench.connection.data_received(OK)
    assert [chunk async for chunk in response] == [b"ok"]
    assert bench.transport.is_closing()


async def test_an_answer_before_the_last_byte_left_ends_the_connection(bench: Bench) -> None:
    response = bench.send(b"{}")
    bench.transport.unflushed = 1
    bench.connection.data_received(OK)
    assert [chunk async for chunk in response] == [b"ok"]
    assert bench.transport.is_closing()


async def test_an_error_status_stops_the_upload(bench: Bench) -> None:
    bench.transport.full = True
    bench.send(bytes(3 * WRITE_SLICE))
    bench.connection.data_received(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 9\r\n\r\n")
    bench.connection.resume_writing()
    assert len(bench.transport.written) == len(HEAD) + WRITE_SLICE


async def test_an_upload_that_moves_is_not_a_late_first_byte(bench: Bench) -> None:
    bench.transport.full = True
    response = bench.send(bytes(9 * WRITE_SLICE), Deadlines(first_byte_s=1.2))
    for _ in range(5):
        await asyncio.sleep(0.3)
        bench.connection.resume_writing()
    assert not bench.transport.is_closing()
    with pytest.raises(DeadlineExceeded, match="first_byte"):
        await response.wait_head()


async def test_a_connection_that_is_closing_is_not_taken_from_the_pool(bench: Bench) -> None:
    response = bench.send()
    bench.connection.data_received(OK)
    assert [chunk async for chunk in response] == [b"ok"]
    bench.transport.abort()
    assert bench.pool.take(bench.origin) is None


async def test_nothing_is_sent_on_a_connection_that_is_busy(bench: Bench) -> None:
    bench.send()
    with pytest.raises(ConnectionLost, match="before the request was sent"):
        bench.send()


async def test_closing_the_pool_does_not_hang_on_a_loop_that_never_reports_the_end(bench: Bench) -> None:
    response = bench.send()
    await bench.pool.aclose()
    assert bench.transport.is_closing()
    with pytest.raises(ConnectionLost):
        await response.wait_head()
