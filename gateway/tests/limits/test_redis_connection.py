"""The connection that all requests share, against servers that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import cast

import pytest

from sluice_gateway.limits.redis_address import RedisAddress, parse_address
from sluice_gateway.limits.redis_connection import RedisConnection, StoreError, StoreLost, StoreRefused

from .limiting import PATIENCE_S, admitted, key_with, redis_limiter, until
from .redis_server import RedisServer

Answering = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def server_that(answer: Answering) -> AsyncIterator[int]:
    """A server of the test's own; gives its port."""
    handlers: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.add(cast(asyncio.Task[None], asyncio.current_task()))
        with contextlib.suppress(ConnectionError):
            await answer(reader, writer)
        writer.transport.abort()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.wait_for(asyncio.gather(*handlers), PATIENCE_S)


@asynccontextmanager
async def connected(answer: Answering, timeout_s: float = PATIENCE_S) -> AsyncIterator[RedisConnection]:
    """A connection to a server of the test's own."""
    lost: list[str] = []
    async with server_that(answer) as port:
        address = RedisAddress(host="127.0.0.1", port=port)
        connection = await address.connect(lambda: RedisConnection(timeout_s, lost.append))
        try:
            yield connection
        finally:
            connection.close()
            assert len(lost) == 1, "told once, and only once"


def says(text: bytes) -> Answering:
    """Sends it byte by byte once it is asked anything."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        for at in range(len(text)):
            writer.write(text[at : at + 1])
            await writer.drain()
            await asyncio.sleep(0)
        while await reader.read(65_536):
            pass

    return answer


async def test_answers_come_in_order_however_they_are_cut() -> None:
    async with connected(says(b":1\r\n-ERR no\r\n*2\r\n:2\r\n$3\r\nabc\r\n")) as connection:
        calls = [connection.call(("PING",)) for _ in range(3)]
        found = await asyncio.gather(*calls, return_exceptions=True)
    assert found[0] == 1
    assert isinstance(found[1], StoreRefused)
    assert found[1].word == "ERR"
    assert found[2] == [2, b"abc"]


async def test_silence_fails_all_that_wait() -> None:
    async with connected(says(b":1\r\n"), timeout_s=0.05) as connection:
        calls = [connection.call(("PING",)) for _ in range(3)]
        found = await asyncio.gather(*calls, return_exceptions=True)
        assert found[0] == 1
        assert [type(one) for one in found[1:]] == [StoreLost, StoreLost]
        with pytest.raises(StoreLost):
            await connection.call(("PING",))


async def test_an_answer_that_lies_in_the_socket_is_not_late() -> None:
    """The loop was held up for longer than the time limit; Redis was not."""
    async with connected(says(b":1\r\n"), timeout_s=0.05) as connection:
        call = connection.call(("PING",))
        await asyncio.sleep(0.02)
        time.sleep(0.1)  # noqa: ASYNC251
        assert await call == 1


@pytest.mark.parametrize("text", [b"HTTP/1.1 200 OK\r\n\r\n", b"\x00"])
async def test_what_is_not_redis_is_given_up(text: bytes) -> None:
    async with connected(says(text)) as connection:
        await asyncio.gather(connection.call(("PING",)), return_exceptions=True)
        with pytest.raises(StoreLost):
            async with asyncio.timeout(PATIENCE_S):
                await connection.call(("PING",))


async def test_the_answer_to_a_cancelled_call_goes_to_its_heir() -> None:
    heir: list[object] = []
    async with connected(says(b":1\r\n:2\r\n")) as connection:
        cancelled = connection.call(("PING",), heir.append)
        cancelled.cancel()
        assert await connection.call(("PING",)) == 2
        assert heir == [1]
        connection.call(("PING",), heir.append).cancel()
    assert isinstance(heir[1], StoreError)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://h", RedisAddress(host="h")),
        ("redis://h:1/2", RedisAddress(host="h", port=1, database=2)),
        ("rediss://u:p%40@h", RedisAddress(host="h", tls=True, username="u", password="p@")),
        ("unix:///run/r.sock?db=3", RedisAddress(path="/run/r.sock", database=3)),
    ],
)
def test_an_address_is_read_from_its_url(url: str, address: RedisAddress) -> None:
    found = parse_address(url)
    assert {field: getattr(found, field) for field in found.__struct_fields__} == {
        field: getattr(address, field) for field in address.__struct_fields__
    }
    assert "p@" not in repr(found)


async def test_the_link_follows_its_slot_to_another_node(shared_redis: RedisServer) -> None:
    async def moved(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65_536):
            writer.write(f"-MOVED 1234 127.0.0.1:{shared_redis.port}\r\n".encode())

    async with server_that(moved) as port:
        node = RedisServer.__new__(RedisServer)
        node.port = port
        async with redis_limiter(node) as limiter:
            await until(lambda: limiter.counters.mode == "redis")
            lease = await admitted(limiter, key_with(requests_per_min=5))
            limiter.settle(lease, None)
            await until(lambda: limiter.unsettled == 0)
