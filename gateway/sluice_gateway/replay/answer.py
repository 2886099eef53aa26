"""A complete answer, kept to be given again.

Headers that belong to one request only (its id, its timing, its limits, its browser) are not kept: every
client gets its own.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from sluice_gateway.wire import Header, Wire

_OVERHEAD_BYTES = 512
_PER_REQUEST = frozenset(
    {
        b"x-request-id",
        b"request-id",
        b"openai-processing-ms",
        b"openai-version",
        b"server-timing",
        b"retry-after",
        b"retry-after-ms",
        b"vary",
        b"x-sluice-cache",
        b"age",
        b"idempotent-replayed",
    }
)
_PER_REQUEST_PREFIXES = (b"x-ratelimit-", b"anthropic-ratelimit-", b"access-control-")


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """What an answer was, byte for byte."""

    status: int
    headers: tuple[Header, ...]
    body: bytes
    streamed: bool
    """It came in pieces, and without a `content-length`."""
    made_s: float
    """When it was complete, in seconds since 1970."""

    @property
    def size_bytes(self) -> int:
        """About what keeping it costs."""
        return len(self.body) + sum(len(n) + len(v) for n, v in self.headers) + _OVERHEAD_BYTES

    async def replay(self, wire: Wire, more_headers: Iterable[Header]) -> None:
        """Give it to a client."""
        headers = [*self.headers, *more_headers]
        if not self.streamed:
            waiting = wire.whole(self.status, headers, self.body)
        else:
            waiting = wire.start(self.status, headers)
            if waiting is not None:
                await waiting
            waiting = wire.finish(self.body)
        if waiting is not None:
            await waiting


def lasting(headers: Iterable[Header]) -> tuple[Header, ...]:
    """The headers that are the same for everybody who gets the answer."""
    return tuple(
        header
        for header in headers
        if header[0] not in _PER_REQUEST and not header[0].startswith(_PER_REQUEST_PREFIXES)
    )
