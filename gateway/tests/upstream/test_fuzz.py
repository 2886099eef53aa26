"""No bytes make the client raise anything but an `UpstreamError`, hang, or mix up two answers."""

from __future__ import annotations

import re

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sluice_engines.transport import Deadlines, UpstreamError
from sluice_gateway.upstream import HttpTransport

from .conftest import ServeScript
from .exchanges import exchange, get
from .generated_responses import broken_responses
from .scripted_server import Peer

SOUND = b"HTTP/1.1 200 OK\r\nX-Which: second\r\nContent-Length: 6\r\n\r\nsecond"


@given(
    pieces=broken_responses(),
    method=st.sampled_from(["POST", "GET", "HEAD"]),
    ending=st.sampled_from(["close", "close", "close", "reset", "stay"]),
)
@settings(
    max_examples=250,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
async def test_garbage(
    client: HttpTransport, serve: ServeScript, pieces: tuple[bytes, ...], method: str, ending: str
) -> None:
    """After any mess, the next request gets its own answer, whichever connection it travels on."""
    messes = [pieces]

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            if not messes:
                await peer.send(SOUND)
                continue
            await peer.send(*messes.pop())
            if ending == "reset":
                peer.reset()
            if ending != "stay":
                return

    server = await serve(script)
    try:
        patience = Deadlines(first_byte_s=0.05, idle_s=0.05)
        try:
            answer = await exchange(client, get(server.url, method=method), patience)
        except UpstreamError:
            assert client.idle_connections == 0
        else:
            assert 200 <= answer.status <= 999
            assert all(re.fullmatch(rb"[^\x00-\x08\x0a-\x1f\x7f]*", value) for _, value in answer.headers)

        second = await exchange(client, get(server.url))
        assert second.body == b"second"
        assert (b"x-which", b"second") in second.headers
    finally:
        await server.stop()
