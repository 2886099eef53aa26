"""A slow side slows the other one down; nothing piles up in between."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import pytest

from sluice_engines.transport import ConnectionLost, DeadlineExceeded, Deadlines, UpstreamRequest
from sluice_gateway.upstream import HttpTransport
from sluice_gateway.upstream.connection import READ_HIGH_WATER

from .conftest import ServeScript
from .exchanges import exchange, post, read_all
from .scripted_server import Peer, answering, eventually

MIB = 1 << 20


async def settled(value: Callable[[], int]) -> int:
    """The value once it has stopped changing."""
    before = -1
    while before != value():
        before = value()
        await asyncio.sleep(0.1)
    return before


class TestReading:
    async def test_a_sleeping_reader_stops_the_sender(
        self, client: HttpTransport, serve: ServeScript
    ) -> None:
        size, sent = 64 * MIB, 0
        piece = bytes(range(256)) * 256

        async def script(peer: Peer) -> None:
            nonlocal sent
            await peer.request()
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
            while sent < size:
                await peer.send(piece)
                sent += len(piece)

        server = await serve(script)
        response = await client.send(post(server.url), Deadlines())
        stuck_at = await settled(lambda: sent)

        assert stuck_at < size / 2  # What the two kernels' socket buffers hold, and a little.
        assert READ_HIGH_WATER < response.buffered <= READ_HIGH_WATER + 256 * 1024
        received = 0
        async for chunk in response:
            received += len(chunk)
        assert received == size
        await eventually(lambda: client.idle_connections == 0)

    async def test_idle_does_not_count_while_the_reader_is_behind(
        self, client: HttpTransport, serve: ServeScript
    ) -> None:
        size = 16 * MIB
        server = await serve(
            answering(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size, b"x" * size, then_close=False)
        )
        response = await client.send(post(server.url), Deadlines(idle_s=0.5))
        await asyncio.sleep(1.2)
        assert len(await read_all(response)) == size
        assert client.idle_connections == 1

    async def test_total_counts_while_the_reader_is_behind(
        self, client: HttpTransport, serve: ServeScript
    ) -> None:
        size = 16 * MIB
        server = await serve(answering(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size, b"x" * size))
        response = await client.send(post(server.url), Deadlines(total_s=0.2))
        await asyncio.sleep(0.4)
        with pytest.raises(DeadlineExceeded) as caught:
            await read_all(response)
        assert caught.value.phase == "total"

    async def test_idle_counts_again_once_the_reader_caught_up(
        self, client: HttpTransport, serve: ServeScript
    ) -> None:
        size = 4 * MIB

        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (size + 1), b"x" * size)
            await peer.until_closed()

        server = await serve(script)
        response = await client.send(post(server.url), Deadlines(idle_s=0.2, total_s=5.0))
        await eventually(lambda: response.buffered > READ_HIGH_WATER)
        with pytest.raises(DeadlineExceeded) as caught:
            await read_all(response)
        assert caught.value.phase == "idle"

    async def test_everything_buffered_is_handed_over_at_once(
        self, client: HttpTransport, serve: ServeScript
    ) -> None:
        events = [b"data: %d\n\n" % number for number in range(50)]
        chunks = [b"%x\r\n%s\r\n" % (len(event), event) for event in events]
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        server = await serve(answering(head, *chunks, b"0\r\n\r\n", then_close=False))

        response = await client.send(post(server.url), Deadlines())
        await eventually(lambda: response.complete)

        assert [chunk async for chunk in response] == [b"".join(events)]


class TestWriting:
    async def test_a_large_body_reaches_a_slow_reader_whole(
        self, client: HttpTransport, serve: ServeScript
    ) -> None:
        body = bytes(range(256)) * 4096 * 8
        seen = bytearray()

        async def script(peer: Peer) -> None:
            while len(seen) < len(body):
                seen.extend(await peer.read(100_000))
                if len(seen) < MIB:
                    await asyncio.sleep(0.001)
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            await peer.until_closed()

        server = await serve(script)
        answer = await exchange(client, post(server.url, body))

        assert answer.body == b"ok"
        assert bytes(seen).endswith(body[-MIB:])
        assert client.idle_connections == 1

    async def test_a_peer_that_does_not_read_is_a_late_first_byte(
        self, client: HttpTransport, serve: ServeScript
    ) -> None:
        async def script(peer: Peer) -> None:
            await asyncio.sleep(3600)

        server = await serve(script)
        with pytest.raises(DeadlineExceeded) as caught:
            await exchange(client, post(server.url, bytes(32 * MIB)), Deadlines(first_byte_s=0.2))
        assert caught.value.phase == "first_byte"

    @pytest.mark.parametrize("status", [b"413 Content Too Large", b"200 OK"])
    async def test_an_answer_before_the_request_is_written_is_read(
        self, status: bytes, client: HttpTransport, serve: ServeScript
    ) -> None:
        async def script(peer: Peer) -> None:
            await peer.read(1000)
            await peer.send(b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\n\r\nno")
            await peer.until_closed()

        server = await serve(script)
        answer = await exchange(client, post(server.url, bytes(32 * MIB)))

        assert answer.status == int(status[:3])
        assert answer.body == b"no"
        assert client.idle_connections == 0
        await server.until_idle()

    async def test_an_early_head_does_not_stop_the_upload(
        self, client: HttpTransport, serve: ServeScript
    ) -> None:
        """An engine may stream its answer while it reads, so waiting for either side would be a deadlock."""
        body = bytes(8 * MIB)

        async def script(peer: Peer) -> None:
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")
            left = len(body)
            while left > 0:
                left -= len(await peer.read(MIB))
            await peer.send(b"done")
            await peer.until_closed()

        server = await serve(script)
        assert (await exchange(client, post(server.url, body))).body == b"done"

    async def test_a_peer_that_leaves_during_the_upload_is_a_loss(
        self, client: HttpTransport, serve: ServeScript
    ) -> None:
        async def script(peer: Peer) -> None:
            await peer.read(1000)
            peer.reset()

        server = await serve(script)
        with pytest.raises(ConnectionLost):
            await exchange(client, post(server.url, bytes(32 * MIB)))


async def test_small_writes_leave_at_once(client: HttpTransport, serve: ServeScript) -> None:
    """With Nagle's algorithm on, a delayed acknowledgement costs 40 ms a request."""
    server = await serve(answering(b"HTTP/1.1 204 No Content\r\n\r\n", then_close=False))
    await exchange(client, UpstreamRequest(base_url=server.url, path="/"))
    (connection,) = client._pool._open
    assert connection._transport is not None
    sock = connection._transport.get_extra_info("socket")
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
