"""What every transport promises: errors by their class, deadlines by their phase, nothing else escapes."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

import pytest

from sluice_engines.transport import (
    ConnectFailed,
    ConnectionLost,
    DeadlineExceeded,
    Deadlines,
    ProtocolViolation,
    Transport,
    UpstreamError,
    UpstreamRequest,
)
from sluice_gateway.upstream import HttpTransport
from sluice_gateway.upstream.httpx_transport import HttpxTransport

from .conftest import ServeScript
from .exchanges import exchange, get, post, read_all
from .scripted_server import Peer, answering

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"
SHORT_S = 0.05


async def silence(peer: Peer) -> None:
    await peer.request()
    await peer.until_closed()


def refused_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class TestRequest:
    async def test_arrives_as_given_with_the_transports_own_headers(
        self, transport: Transport, serve: ServeScript
    ) -> None:
        seen = []

        async def script(peer: Peer) -> None:
            seen.append(await peer.request())
            await peer.send(b"HTTP/1.1 204 No Content\r\n\r\n")

        server = await serve(script)
        body = b'{"model": "x",  "n":1}'
        await exchange(transport, post(server.url, body, path="/v1/chat/completions?a=%20b&c={d}"))

        head, _, sent_body = seen[0].partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        assert lines[0] == b"POST /v1/chat/completions?a=%20b&c={d} HTTP/1.1"
        assert sorted(line.lower() for line in lines[1:]) == [
            b"content-length: 22",
            b"content-type: application/json",
            b"host: " + server.url.removeprefix("http://").encode(),
        ]
        assert sent_body == body

    @pytest.mark.parametrize(
        "header",
        [
            (b"x-a", b"1\r\nx-b: 2"),
            (b"x-a", b"1\nx-b: 2"),
            (b"x-a", b"\0"),
            (b"x-a\r\nx-b", b"1"),
            (b"x-a: 1\r\nx-b", b"1"),
            (b"x a", b"1"),
            (b"", b"1"),
            (b"content-length", b"3"),
            (b"transfer-encoding", b"chunked"),
            (b"host", b"elsewhere"),
            (b"expect", b"100-continue"),
            (b"connection", b"close"),
        ],
    )
    async def test_a_header_that_could_change_the_framing_is_refused_unsent(
        self, header: tuple[bytes, bytes], transport: Transport, serve: ServeScript
    ) -> None:
        server = await serve(silence)
        request = UpstreamRequest(base_url=server.url, path="/", headers=(header,))

        with pytest.raises(ValueError, match="header"):
            await exchange(transport, request)
        assert server.accepted == 0

    @pytest.mark.parametrize("path", ["", "v1", "/a b", "/a\r\nx: y", "/é"])
    async def test_a_path_that_could_change_the_request_line_is_refused(
        self, path: str, transport: Transport
    ) -> None:
        with pytest.raises(ValueError, match="path"):
            await exchange(transport, UpstreamRequest(base_url="http://127.0.0.1:1", path=path))

    async def test_a_method_that_changes_the_connection_is_refused(self, transport: Transport) -> None:
        with pytest.raises(ValueError, match="CONNECT"):
            await exchange(transport, get("http://127.0.0.1:1", method="CONNECT"))


class TestErrors:
    async def test_nobody_listens(self, transport: Transport) -> None:
        with pytest.raises(ConnectFailed):
            await exchange(transport, get(f"http://127.0.0.1:{refused_port()}"))

    @pytest.mark.parametrize(
        "url",
        [
            "ftp://a",
            "http://",
            "nonsense",
            "http://a:99999",
            "http://user:secret@a",
            "http://a/path",
            "http://a?b",
            "http+unix://relative.sock",
            "http://bücher.example",
        ],
    )
    async def test_a_base_url_that_is_not_supported_says_what_is(
        self, url: str, transport: Transport
    ) -> None:
        with pytest.raises(ConnectFailed, match=r"http\+unix:///path.sock"):
            await exchange(transport, get(url))

    async def test_a_socket_file_that_is_not_there(self, transport: Transport, tmp_path: Path) -> None:
        with pytest.raises(ConnectFailed):
            await exchange(transport, get(f"http+unix://{tmp_path}/none.sock"))

    @pytest.mark.parametrize(
        "wire",
        [
            b"",
            b"HTTP/1.1 200 OK\r\nContent-",
            b"HTTP/1.1 100 Continue\r\n\r\n",
            HEAD + b"cut",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        ],
        ids=["nothing", "in the head", "after an interim", "in the body", "before the end", "in the end"],
    )
    async def test_a_close_before_the_end_is_a_loss(
        self, wire: bytes, transport: Transport, serve: ServeScript
    ) -> None:
        server = await serve(answering(wire))
        with pytest.raises(ConnectionLost):
            await exchange(transport, post(server.url))

    async def test_a_reset_is_a_loss(self, transport: Transport, serve: ServeScript) -> None:
        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.send(HEAD + b"cut")
            peer.reset()

        server = await serve(script)
        with pytest.raises(ConnectionLost):
            await exchange(transport, post(server.url))

    async def test_what_arrived_before_a_loss_is_delivered(
        self, transport: Transport, serve: ServeScript
    ) -> None:
        server = await serve(answering(HEAD, b"part one,", b"part two"))
        response = await transport.send(post(server.url), Deadlines())
        received = b""
        with pytest.raises(ConnectionLost):
            async for chunk in response:
                received += chunk
        assert received == b"part one,part two"

    @pytest.mark.parametrize(
        "wire",
        [
            b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
            b"HTTP/1.1 2x0 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nx: a\0b\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        ],
    )
    async def test_bytes_that_are_not_http(
        self, wire: bytes, transport: Transport, serve: ServeScript
    ) -> None:
        server = await serve(answering(wire))
        with pytest.raises(ProtocolViolation):
            await exchange(transport, post(server.url))

    async def test_an_endless_head_is_refused(self, transport: Transport, serve: ServeScript) -> None:
        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.send(b"HTTP/1.1 200 OK\r\n")
            while True:
                await peer.send(b"x-more: " + b"y" * 1000 + b"\r\n")

        server = await serve(script)
        with pytest.raises(ProtocolViolation):
            await exchange(transport, get(server.url))
        await server.until_idle()


class TestDeadlines:
    async def test_first_byte(self, transport: Transport, serve: ServeScript) -> None:
        server = await serve(silence)
        with pytest.raises(DeadlineExceeded) as caught:
            await exchange(transport, post(server.url), Deadlines(first_byte_s=SHORT_S))
        assert caught.value.phase == "first_byte"
        await server.until_idle()

    async def test_a_dripping_head_does_not_put_off_the_first_byte(
        self, transport: Transport, serve: ServeScript
    ) -> None:
        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.send(b"HTTP/1.1 200 OK\r\n")
            while True:
                await peer.send(b"x: y\r\n")
                await asyncio.sleep(SHORT_S / 5)

        server = await serve(script)
        with pytest.raises(DeadlineExceeded) as caught:
            await exchange(transport, post(server.url), Deadlines(first_byte_s=SHORT_S))
        assert caught.value.phase == "first_byte"

    async def test_idle(self, transport: Transport, serve: ServeScript) -> None:
        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.send(HEAD + b"then nothing")
            await peer.until_closed()

        server = await serve(script)
        response = await transport.send(post(server.url), Deadlines(idle_s=SHORT_S))
        with pytest.raises(DeadlineExceeded) as caught:
            await read_all(response)
        assert caught.value.phase == "idle"
        await server.until_idle()

    async def test_steady_data_keep_idle_away_but_not_total(
        self, transport: Transport, serve: ServeScript
    ) -> None:
        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
            while True:
                await peer.send(b"data: tick\n\n")
                await asyncio.sleep(0.01)

        server = await serve(script)
        deadlines = Deadlines(idle_s=1.0, total_s=0.3)
        response = await transport.send(post(server.url), deadlines)
        received = b""
        with pytest.raises(DeadlineExceeded) as caught:
            async for chunk in response:
                received += chunk
        assert caught.value.phase == "total"
        assert received.startswith(b"data: tick\n\n")
        await server.until_idle()

    async def test_total_counts_from_send(self, transport: Transport, serve: ServeScript) -> None:
        server = await serve(silence)
        with pytest.raises(DeadlineExceeded) as caught:
            await exchange(transport, post(server.url), Deadlines(first_byte_s=None, total_s=SHORT_S))
        assert caught.value.phase == "total"

    async def test_connect(self, transport: Transport) -> None:
        """A full backlog: the kernel drops the SYN, as an unreachable host does."""
        with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
            listener.bind(("127.0.0.1", 0))
            listener.listen(0)
            for sock in (first, second):
                sock.setblocking(False)
                sock.connect_ex(listener.getsockname())
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            with pytest.raises(DeadlineExceeded) as caught:
                await exchange(transport, get(url), Deadlines(connect_s=SHORT_S))
            assert caught.value.phase == "connect"

    async def test_none_switches_every_deadline_off(self, transport: Transport, serve: ServeScript) -> None:
        server = await serve(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
        never = Deadlines(connect_s=None, first_byte_s=None, idle_s=None, total_s=None)
        assert (await exchange(transport, post(server.url), never)).body == b"ok"


class TestWays:
    async def test_unix_socket(self, transport: Transport, serve: ServeScript, tmp_path: Path) -> None:
        script = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        server = await serve(script, socket_path=tmp_path / "engine.sock")
        assert (await exchange(transport, get(server.url))).body == b"ok"

    async def test_https(self, transport: Transport, serve: ServeScript, server_tls: ssl.SSLContext) -> None:
        script = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", then_close=False)
        server = await serve(script, tls=server_tls)
        for _ in range(2):
            assert (await exchange(transport, post(server.url))).body == b"ok"
        assert server.accepted == 1

    async def test_a_certificate_that_nobody_vouches_for(
        self, serve: ServeScript, server_tls: ssl.SSLContext
    ) -> None:
        server = await serve(silence, tls=server_tls)
        for make in (HttpTransport, HttpxTransport):
            transport = make()
            with pytest.raises(ConnectFailed, match="CERTIFICATE_VERIFY_FAILED"):
                await exchange(transport, get(server.url))
            await transport.aclose()

    async def test_a_plain_server_behind_an_https_url(self, transport: Transport, serve: ServeScript) -> None:
        server = await serve(lambda peer: peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
        with pytest.raises(ConnectFailed):
            await exchange(transport, get(server.url.replace("http:", "https:")))


class TestClosing:
    async def test_aclose_twice(self, transport: Transport, serve: ServeScript) -> None:
        server = await serve(answering(b"HTTP/1.1 204 No Content\r\n\r\n", then_close=False))
        await exchange(transport, get(server.url))
        await transport.aclose()
        await transport.aclose()
        await server.until_idle()

    async def test_sending_after_aclose_says_so(self, transport: Transport, serve: ServeScript) -> None:
        server = await serve(silence)
        await transport.aclose()
        with pytest.raises(ConnectFailed, match="closed"):
            await exchange(transport, get(server.url))
        assert server.accepted == 0

    async def test_a_response_closed_early_closes_its_connection(
        self, transport: Transport, serve: ServeScript
    ) -> None:
        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.send(HEAD + b"some")
            await peer.until_closed()

        server = await serve(script)
        response = await transport.send(post(server.url), Deadlines())
        assert await anext(aiter(response)) == b"some"
        await response.aclose()
        await response.aclose()
        await server.until_idle()

    async def test_closing_after_the_end_is_nothing(self, transport: Transport, serve: ServeScript) -> None:
        server = await serve(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", then_close=False))
        for _ in range(2):
            response = await transport.send(post(server.url), Deadlines())
            assert await read_all(response) == b"ok"
            await response.aclose()
        assert server.accepted == 1

    async def test_errors_are_all_upstream_errors(self) -> None:
        assert {ConnectFailed, ConnectionLost, ProtocolViolation, DeadlineExceeded} == set(
            UpstreamError.__subclasses__()
        )
