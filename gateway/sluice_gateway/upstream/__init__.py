"""The upstream client: how the gateway's bytes reach an engine over HTTP/1.1.

`HttpTransport` is the data plane's own client (asyncio.Protocol and httptools). `HttpxTransport` is the same
interface over httpx, for proxies and TLS set-ups that the first does not know; it is imported from its own
module, since httpx is heavy. Both implement `sluice_engines.transport.Transport`, and one contract suite runs
against both.

    socket ── Connection ── HttpResponse (parses, buffers, is iterated)
                  │
                  └── DeadlineClock (one lazy timer)      ConnectionPool (idle connections by origin)

Invariants: a connection carries at most one exchange, and goes back to the pool only after a response that
ended cleanly and was read to its end. Nothing here retries, except a request that met a stale keep-alive
connection before a single response byte.
"""

from sluice_gateway.upstream.client import HttpTransport
from sluice_gateway.upstream.pump import pump

__all__ = ["HttpTransport", "pump"]
