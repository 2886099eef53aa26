"""The gateway's own pipeline as a batch's runner: a request without a socket, its answer kept in memory."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from sluice_gateway.arrival import Arrival, GivenBody
from sluice_gateway.batches.runner_types import CollectedAnswer
from sluice_gateway.exchange import Exchange
from sluice_gateway.identity import Key
from sluice_gateway.response import Envelope
from sluice_gateway.routes import DATA_PLANE, Kind
from sluice_gateway.wire import Header

_HEADERS = {b"content-type": b"application/json"}


class PipelineRunner:
    """See `Runner`."""

    def __init__(self, serve: Callable[[Arrival], Awaitable[Exchange]], clock: Callable[[], float]) -> None:
        """`serve` is the pipeline's, `clock` its clock."""
        self._serve = serve
        self._clock = clock

    async def __call__(
        self, kind: Kind, path: str, body: bytes, key: Key, *, request_id: str, priority: str
    ) -> CollectedAnswer:
        """See `Runner`."""
        wire = MemoryWire()
        route = DATA_PLANE[path]
        assert route.kind == kind
        envelope = Envelope(request_id, self._clock, [])
        await self._serve(
            Arrival(route, dict(_HEADERS), None, GivenBody(body), wire, envelope, key=key, priority=priority)
        )
        return wire.answer()


class MemoryWire:
    """A `Wire` that keeps what it is given."""

    def __init__(self) -> None:
        self._status = 0
        self._headers: dict[bytes, bytes] = {}
        self._parts: list[bytes] = []
        self._is_complete = False

    def start(self, status: int, headers: list[Header]) -> None:
        """See `Wire`."""
        self._status, self._headers = status, dict(headers)

    def write(self, data: bytes) -> None:
        """See `Wire`."""
        self._parts.append(data)

    def finish(self, data: bytes = b"") -> None:
        """See `Wire`."""
        self._parts.append(data)
        self._is_complete = True

    def whole(self, status: int, headers: list[Header], body: bytes) -> None:
        """See `Wire`."""
        self.start(status, headers)
        self.finish(body)

    def answer(self) -> CollectedAnswer:
        """What has come. An answer that was cut in its middle is the engine's failure."""
        if not self._is_complete:
            return CollectedAnswer(status=502)
        return CollectedAnswer(status=self._status, headers=self._headers, body=b"".join(self._parts))
