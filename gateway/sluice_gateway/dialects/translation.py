"""What a dialect does to one request: from its own words to chat completions, and back.

A translation is made anew for every attempt, holds only that attempt's state, and does no I/O: bytes in,
bytes out. An engine that speaks the dialect natively gets the client's original bytes and no translation.
"""

from __future__ import annotations

from typing import Protocol

from sluice_gateway.errors import Problem


class Translation(Protocol):
    """One attempt at one request."""

    path: str
    """Where the engine is asked, e.g. `/v1/chat/completions`."""
    body: bytes
    """What it is asked."""

    def whole(self, body: bytes) -> bytes:
        """A complete plain chat answer (2xx) in the dialect. Raises `ValueError` when it is not one."""
        ...

    def events(self, data: bytes) -> bytes:
        """One upstream event's data (never `[DONE]`) as zero or more events of the dialect, framed.

        Raises `ValueError` when it is not a chat chunk.
        """
        ...

    def end(self) -> bytes:
        """The events that close the stream, once the upstream's ended properly."""
        ...

    def failure(self, found: Problem) -> bytes:
        """The event that ends a stream which has begun and then failed."""
        ...
