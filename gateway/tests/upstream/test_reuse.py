"""When a connection serves again, and above all when it must not."""

from __future__ import annotations

import asyncio

import pytest

from sluice_engines.transport import ConnectFailed, ConnectionLost, Deadlines, UpstreamError
from sluice_gateway.upstream import HttpTransport

from .conftest import ServeScript
from .exchanges import exchange, get, post, read_all
from .scripted_server import Peer, Script, answering, eventually

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def close_after(answers: int, wire: bytes = OK) -> Script:
    """Answers so many requests, reads one more, and closes without a byte."""

    async def script(peer: Peer) -> None:
        for _ in range(answers):
            await peer.request()
            await peer.send(wire)
        await peer.request()

    return script


class TestKeepAlive:
    async def test_requests_in_turn_share_one_connection(
        self, client: HttpTransport, serve: ServeScript
    ) -> None:
        server = await serve(answering(OK, then_close=False))
        for _ in range(5):
            assert (await exchange(client, post(server.url))).body == b"ok"
        assert (server.accepted, client.open_connections, client.idle_connections) == (1, 1, 1)

    async def test_requests_at_once_have_one_connection_each(
        self, client: HttpTransport, serve: ServeScript
    ) -> None:
        server = await serve(answering(OK, then_close=False))
        await asyncio.gather(*(exchange(client, post(server.url)) for _ in range(20)))
        assert (server.accepted, client.idle_connections) == (20, 20)

    async def test_the_connection_used_last_is_taken_first(
        self, client: HttpTransport, serve: ServeScript
    ) -> None:
        served_by: list[int] = []
        everyone_here = asyncio.Event()

        async def script(peer: Peer) -> None:
            number = server.accepted
            while True:
                await peer.request()
                served_by.append(number)
                await everyone_here.wait()
                await peer.send(OK)

        server = await serve(script)
        burst = [asyncio.create_task(exchange(client, post(server.url))) for _ in range(3)]
        await eventually(lambda: len(served_by) == 3)
        everyone_here.set()
        await asyncio.gather(*burst)

        served_by.clear()
        for _ in range(4):
            await exchange(client, post(server.url))
        assert len(set(served_by)) == 1

    async def test_an_idle_connection_expires(self, serve: ServeScript) -> None:
        client = HttpTransport(idle_life_s=0.05)
        server = await serve(answering(OK, then_close=False))
        await exchange(client, post(server.url))
        await server.until_idle()
        await eventually(lambda: client.open_connections == 0)
        assert client.idle_connections == 0
        await client.aclose()

    async def test_a_connection_that_the_server_closes_while_idle_is_forgotten(
        self, client: HttpTransport, serve: ServeScript
    ) -> None:
        server = await serve(answering(OK, then_close=True))
        await exchange(client, post(server.url))
        await eventually(lambda: client.open_connections == 0)
        assert client.idle_connections == 0

    async def test_origins_do_not_share(self, client: HttpTransport, serve: ServeScript) -> None:
        one = await serve(answering(OK, then_close=False))
        two = await serve(answering(OK, then_close=False))
        for server in (one, two, one, two):
            await exchange(client, post(server.url))
        assert (one.accepted, two.accepted) == (1, 1)


class TestNeverReused:
    @pytest.mark.parametrize(
        "wire",
        [
            OK + b"H",
            OK + b"garbage",
            OK + OK,
            OK + b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n",
            b"HTTP/1.1 204 No Content\r\n\r\nsurprise",
        ],
    )
    async def test_after_bytes_that_nobody_asked_for(
        self, wire: bytes, client: HttpTransport, serve: ServeScript
    ) -> None:
        server = await serve(answering(wire, then_close=False))
        for expected in (1, 2):
            answer = await exchange(client, post(server.url))
            assert answer.body in (b"ok", b"")
            assert (server.accepted, client.idle_connections) == (expected, 0)

    async def test_after_bytes_that_come_while_idle(self, client: HttpTransport, serve: ServeScript) -> None:
        speak = asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.send(OK)
            await speak.wait()
            await peer.send(OK)
            await peer.until_closed()

        server = await serve(script)
        await exchange(client, post(server.url))
        assert client.idle_connections == 1
        speak.set()
        await server.until_idle()
        await eventually(lambda: client.open_connections == 0)

    async def test_after_a_response_closed_early(self, client: HttpTransport, serve: ServeScript) -> None:
        server = await serve(answering(OK, then_close=False))
        response = await client.send(post(server.url), Deadlines())
        await response.aclose()
        assert client.idle_connections == 0
        with pytest.raises(ConnectionLost, match="closed by its reader"):
            await read_all(response)
        await server.until_idle()

    async def test_after_a_head_answer_whose_body_is_not_known_to_be_absent(
        self, client: HttpTransport, serve: ServeScript
    ) -> None:
        wire = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        server = await serve(answering(wire, b"0\r\n\r\n", then_close=False))
        await exchange(client, get(server.url, method="HEAD"))
        assert client.idle_connections == 0


class TestStaleConnection:
    async def test_a_request_that_met_a_closing_connection_is_sent_once_more(
        self, client: HttpTransport, serve: ServeScript
    ) -> None:
        server = await serve(close_after(1))
        for connections in (1, 2, 3):
            assert (await exchange(client, post(server.url))).body == b"ok"
            assert server.accepted == connections

    async def test_by_a_fresh_connection_even_when_others_are_idle(
        self, client: HttpTransport, serve: ServeScript
    ) -> None:
        server = await serve(close_after(1))
        await asyncio.gather(*(exchange(client, post(server.url)) for _ in range(3)))
        assert client.idle_connections == 3
        assert (await exchange(client, post(server.url))).body == b"ok"
        assert server.accepted == 4

    async def test_but_never_twice(self, client: HttpTransport, serve: ServeScript) -> None:
        server = await serve(close_after(1))
        await exchange(client, post(server.url))
        server.script = close_after(0)
        with pytest.raises(ConnectionLost):
            await exchange(client, post(server.url))
        assert server.accepted == 2

    async def test_never_on_a_fresh_connection(self, client: HttpTransport, serve: ServeScript) -> None:
        server = await serve(close_after(0))
        with pytest.raises(ConnectionLost):
            await exchange(client, post(server.url))
        assert server.accepted == 1

    @pytest.mark.parametrize("first_bytes", [b"H", b"HTTP/1.1 100 Continue\r\n\r\n", OK[:-1]])
    async def test_never_after_a_byte_of_the_answer(
        self, first_bytes: bytes, client: HttpTransport, serve: ServeScript
    ) -> None:
        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.send(OK)
            await peer.request()
            await peer.send(first_bytes)

        server = await serve(script)
        await exchange(client, post(server.url))
        with pytest.raises(ConnectionLost):
            await exchange(client, post(server.url))
        assert server.accepted == 1

    async def test_never_for_a_deadline(self, client: HttpTransport, serve: ServeScript) -> None:
        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.send(OK)
            await peer.until_closed()

        server = await serve(script)
        await exchange(client, post(server.url))
        with pytest.raises(UpstreamError, match="first_byte"):
            await exchange(client, post(server.url), Deadlines(first_byte_s=0.05))
        assert server.accepted == 1


class TestShutdown:
    async def test_aclose_ends_what_runs_and_closes_every_socket(
        self, client: HttpTransport, serve: ServeScript
    ) -> None:
        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.send(OK)
            await peer.request()
            await peer.until_closed()

        server = await serve(script)
        await asyncio.gather(*(exchange(client, post(server.url)) for _ in range(2)))
        assert client.idle_connections == 2
        server.script = Peer.until_closed
        waiting = [asyncio.create_task(exchange(client, post(server.url))) for _ in range(3)]
        await eventually(lambda: server.accepted == 3)

        await asyncio.gather(client.aclose(), client.aclose())

        assert client.open_connections == 0
        for task in waiting:
            with pytest.raises((ConnectFailed, ConnectionLost)):
                await task
        await server.until_idle()

    async def test_a_connection_that_comes_up_during_aclose_is_closed(
        self, client: HttpTransport, serve: ServeScript
    ) -> None:
        server = await serve(answering(OK, then_close=False))
        sending = asyncio.create_task(exchange(client, post(server.url)))
        await asyncio.sleep(0)
        await client.aclose()
        with pytest.raises(ConnectFailed):
            await sending
        await server.until_idle()
        await eventually(lambda: client.open_connections == 0)
