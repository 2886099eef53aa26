"""One client's end of an answer that comes from elsewhere: passes it on, and knows how far it got."""

from __future__ import annotations

from collections.abc import Awaitable

from sluice_gateway.interruption import Interruption
from sluice_gateway.wire import Header, Wire

_EVENT_STREAM = b"text/event-stream"


class Delivery:
    """A `Wire` around the client's own."""

    __slots__ = ("_interruption", "_wire", "finished", "is_event_stream", "status")

    def __init__(self, wire: Wire, interruption: Interruption) -> None:
        """`interruption` is that of the task that delivers."""
        self._wire = wire
        self._interruption = interruption
        self.status = 0
        """What the client saw; 0 until then."""
        self.finished = False
        """The client has the whole answer."""
        self.is_event_stream = False

    @property
    def interruption(self) -> Interruption:
        """What ends the delivery from outside."""
        return self._interruption

    def start(self, status: int, headers: list[Header]) -> Awaitable[None] | None:
        """See `Wire`."""
        self._begin(status, headers)
        return self._wire.start(status, headers)

    def write(self, data: bytes) -> Awaitable[None] | None:
        """See `Wire`."""
        return self._wire.write(data)

    def finish(self, data: bytes = b"") -> Awaitable[None] | None:
        """See `Wire`."""
        self.finished = self._interruption.answered = True
        return self._wire.finish(data)

    def whole(self, status: int, headers: list[Header], body: bytes) -> Awaitable[None] | None:
        """See `Wire`."""
        self._begin(status, headers)
        self.finished = self._interruption.answered = True
        return self._wire.whole(status, headers, body)

    def _begin(self, status: int, headers: list[Header]) -> None:
        self.status = status
        self.is_event_stream = any(
            name == b"content-type" and value.startswith(_EVENT_STREAM) for name, value in headers
        )
