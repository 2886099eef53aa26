"""Whatever valid response an engine sends, our client and httpx agree on it, and both on what was meant."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sluice_engines.transport import Transport

from .conftest import ServeScript
from .exchanges import exchange, get
from .generated_responses import Generated, valid_responses
from .scripted_server import Peer


@given(responses=st.lists(valid_responses(), min_size=1, max_size=3))
@settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
async def test_valid_responses_are_understood(
    transport: Transport, serve: ServeScript, responses: list[Generated]
) -> None:
    """Both clients run through the same wires, one after the other on a connection where it is kept."""
    left: Iterator[Generated] = iter(responses)

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            response = next(left)
            await peer.send(*response.pieces)
            if response.closes:
                return

    server = await serve(script)
    try:
        for response in responses:
            answer = await exchange(transport, get(server.url, method=response.method))
            assert answer == (response.status, response.headers, response.body)
    finally:
        await server.stop()
