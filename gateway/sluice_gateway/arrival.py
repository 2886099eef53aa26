"""A request as it reaches the pipeline, and the two ends of the client that sent it.

A carrier (the native HTTP protocol, an ASGI server, a batch) is a `Source` of the request and a `Wire` for
the answer. The pipeline knows no other way to a client.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from sluice_gateway.dialects.opened import Opened
from sluice_gateway.errors import Problem
from sluice_gateway.identity import Key
from sluice_gateway.interruption import Interruption
from sluice_gateway.response import Envelope
from sluice_gateway.routes import Route
from sluice_gateway.wire import Wire


class Source(Protocol):
    """Where a request's body comes from, and who knows whether its client is still there."""

    async def read(self, limit: int, timeout_s: float) -> bytes | Problem:
        """The body, once; or why there is none: larger than `limit` bytes, too slow, the client left."""
        ...

    def watch(self, interruption: Interruption) -> None:
        """Interrupt when the client leaves or stops reading. Called once, after `read`."""
        ...

    def unwatch(self) -> None:
        """Interrupt nothing from here on. Idempotent."""
        ...


class GivenBody:
    """The source of a request that the gateway makes itself: nobody who could leave."""

    __slots__ = ("_body",)

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def read(self, limit: int, timeout_s: float) -> bytes | Problem:
        """See `Source`."""
        return self._body

    def watch(self, interruption: Interruption) -> None:
        """See `Source`."""

    def unwatch(self) -> None:
        """See `Source`."""


@dataclass(slots=True)
class Arrival:
    """One request."""

    route: Route
    headers: dict[bytes, bytes]
    """Lower-case names."""
    server: tuple[str, int | None] | None
    """The address that it came in on."""
    source: Source
    wire: Wire
    envelope: Envelope
    key: Key | None = None
    """Whose request it is, when that has been settled already; otherwise its headers say."""
    priority: str | None = None
    """Wins over the request's own."""
    opened: Opened | None = None
    """The request, opened already, of a kind that is."""
    may_replay: bool = True
    """An answer that was made before, or is being made, may be given."""
