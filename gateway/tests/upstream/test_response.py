"""What our own client refuses where the parser library, or another client, would go along."""

from __future__ import annotations

import asyncio

import pytest

from sluice_engines.transport import ProtocolViolation
from sluice_gateway.upstream import HttpTransport
from sluice_gateway.upstream.response import MAX_HEAD_BYTES, HttpResponse

from .conftest import ServeScript
from .exchanges import exchange, get
from .scripted_server import Peer, answering

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "wire",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/3.0 200 OK\r\n\r\n",
        b"HTTP/1.1 099 Low\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\t\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551617\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nX: a\r\n folded\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        CHUNKED + b"5 \r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"5\r\nhelloX\r\n0\r\n\r\n",
        CHUNKED + b"10000000000000000\r\n",
    ],
)
async def test_doubtful_messages_are_refused(wire: bytes, client: HttpTransport, serve: ServeScript) -> None:
    server = await serve(answering(wire, then_close=False))
    with pytest.raises(ProtocolViolation):
        await exchange(client, get(server.url))
    assert client.idle_connections == 0
    await server.until_idle()


@pytest.mark.parametrize(
    ("opening", "flood"),
    [
        (b"HTTP/1.1 200 ", b"x" * 1000),
        (b"HTTP/1.1 200 OK\r\n", b"x" * 1000),
        (b"HTTP/1.1 200 OK\r\nx: ", b"y" * 1000),
        (b"HTTP/1.1 200 OK\r\n", b"x: %s\r\n" % (b"y" * 100)),
        (b"", b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"),
        (b"", b"HTTP/1.1 102 Processing\r\n\r\n"),
        (CHUNKED + b"5;", b"x" * 1000),
        (CHUNKED + b"0\r\n", b"trailer: %s\r\n" % (b"y" * 100)),
        (CHUNKED + b"0\r\ntrailer: ", b"y" * 1000),
    ],
    ids=[
        "reason",
        "name",
        "value",
        "headers",
        "interims with headers",
        "bare interims",
        "chunk extension",
        "trailers",
        "trailer",
    ],
)
async def test_endless_framing_is_refused(
    opening: bytes, flood: bytes, client: HttpTransport, serve: ServeScript
) -> None:
    sent = 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.request()
        await peer.send(opening)
        while True:
            await peer.send(flood)
            sent += len(flood)

    server = await serve(script)
    with pytest.raises(ProtocolViolation, match="65536 bytes"):
        await exchange(client, get(server.url))
    await server.until_idle()
    assert MAX_HEAD_BYTES / 2 < sent < MAX_HEAD_BYTES * 20


async def test_a_head_just_under_the_limit_is_accepted(client: HttpTransport, serve: ServeScript) -> None:
    value = b"y" * (MAX_HEAD_BYTES - 200)
    server = await serve(answering(b"HTTP/1.1 200 OK\r\nx: %s\r\nContent-Length: 2\r\n\r\nok" % value))
    answer = await exchange(client, get(server.url))
    assert answer.headers[0] == (b"x", value)
    assert answer.body == b"ok"


class NoLink:
    """A connection that nothing is asked of."""

    def body_taken(self) -> None:
        return

    def abort(self) -> None:
        return


async def test_a_large_head_in_one_read_is_refused() -> None:
    response = HttpResponse(NoLink(), asyncio.get_running_loop(), head_only=False)
    head = b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * MAX_HEAD_BYTES + b"Content-Length: 0\r\n\r\n"
    with pytest.raises(ProtocolViolation, match="65536 bytes"):
        response.feed(head)


async def test_framing_in_reads_of_its_own_does_not_add_up() -> None:
    response = HttpResponse(NoLink(), asyncio.get_running_loop(), head_only=False)
    response.feed(CHUNKED)
    for _ in range(MAX_HEAD_BYTES // 4):
        for piece in (b"1\r\n", b"x", b"\r\n"):
            response.feed(piece)
    response.feed(b"0\r\n\r\n")
    assert response.complete
    assert response.buffered == MAX_HEAD_BYTES // 4


async def test_a_long_stream_of_small_chunks_is_no_flood(client: HttpTransport, serve: ServeScript) -> None:
    chunks = [b"1\r\nx\r\n"] * (MAX_HEAD_BYTES // 4)
    server = await serve(answering(CHUNKED, b"".join(chunks), b"0\r\n\r\n", then_close=False))
    assert (await exchange(client, get(server.url))).body == b"x" * len(chunks)
    assert client.idle_connections == 1
