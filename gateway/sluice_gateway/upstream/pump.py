"""Reading a response by being called instead of by asking: what a relay does with every piece of a stream.

`HttpResponse.pump` calls the sink from the socket's callback. Any other response is iterated: the slow,
obvious twin with the same order, errors and back-pressure.
"""

from __future__ import annotations

from sluice_engines.transport import UpstreamResponse
from sluice_gateway.upstream.response import HttpResponse, Sink


async def pump(response: UpstreamResponse, sink: Sink) -> None:
    """Give the body to `sink` piece by piece. Raises `UpstreamError`, and whatever `sink` raises."""
    if isinstance(response, HttpResponse):
        await response.pump(sink)
        return
    async for data in response:
        waiting = sink(data)
        if waiting is not None:
            await waiting
