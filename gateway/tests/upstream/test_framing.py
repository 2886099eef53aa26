"""Whatever the framing and however the bytes are cut, both clients see the same response."""

from __future__ import annotations

import pytest

from sluice_engines.transport import Transport, UpstreamRequest
from sluice_gateway.upstream import HttpTransport

from .conftest import ServeScript
from .exchanges import FRAMINGS, Framing, exchange, get, post
from .scripted_server import answering, pieces_of

each_framing = pytest.mark.parametrize("framing", FRAMINGS, ids=[framing.name for framing in FRAMINGS])


def request_for(framing: Framing, url: str) -> UpstreamRequest:
    return get(url, method="HEAD") if framing.method == "HEAD" else post(url)


@each_framing
async def test_a_framing_is_removed(framing: Framing, transport: Transport, serve: ServeScript) -> None:
    server = await serve(answering(framing.wire, then_close=framing.closes))

    answer = await exchange(transport, request_for(framing, server.url))

    assert (answer.status, answer.body) == (framing.status, framing.body)


@each_framing
async def test_any_cut_gives_the_same_response(
    framing: Framing, client: HttpTransport, serve: ServeScript
) -> None:
    server = await serve(answering())
    for cut in range(1, len(framing.wire)):
        server.script = answering(*pieces_of(framing.wire, [cut]), then_close=framing.closes)
        answer = await exchange(client, request_for(framing, server.url))
        assert (answer.status, answer.body) == (framing.status, framing.body), f"cut at {cut}"


@each_framing
async def test_byte_by_byte_gives_the_same_response(
    framing: Framing, transport: Transport, serve: ServeScript
) -> None:
    cuts = range(1, len(framing.wire))
    server = await serve(answering(*pieces_of(framing.wire, cuts), then_close=framing.closes))

    answer = await exchange(transport, request_for(framing, server.url))

    assert (answer.status, answer.body) == (framing.status, framing.body)


@each_framing
async def test_only_a_clean_end_keeps_the_connection(
    framing: Framing, client: HttpTransport, serve: ServeScript
) -> None:
    server = await serve(answering(framing.wire, then_close=framing.closes))

    await exchange(client, request_for(framing, server.url))

    assert client.idle_connections == int(framing.reusable)
    assert (await exchange(client, request_for(framing, server.url))).body == framing.body
    assert server.accepted == (1 if framing.reusable else 2)


async def test_headers_are_lower_cased_kept_in_order_and_stripped(
    transport: Transport, serve: ServeScript
) -> None:
    wire = (
        b"HTTP/1.1 200 OK\r\nX-B:  one \r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\n"
        b"X-Empty:\r\nContent-Length: 0\r\n\r\n"
    )
    server = await serve(answering(wire))

    answer = await exchange(transport, get(server.url))

    assert answer.headers == (
        (b"x-b", b"one"),
        (b"set-cookie", b"a=1"),
        (b"set-cookie", b"b=2"),
        (b"x-empty", b""),
        (b"content-length", b"0"),
    )


async def test_trailers_do_not_become_headers_of_this_response_or_the_next(
    client: HttpTransport, serve: ServeScript
) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Late: 1\r\n\r\n"
    server = await serve(answering(chunked, then_close=False))

    for _ in range(2):
        answer = await exchange(client, get(server.url))
        assert answer.headers == ((b"transfer-encoding", b"chunked"),)
    assert server.accepted == 1
