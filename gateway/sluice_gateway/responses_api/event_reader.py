"""The events of a background response that runs in another process, or has ended: read from the store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from sluice_gateway.dialects.responses.event_stream import frame
from sluice_gateway.dialects.responses.response_object import FINAL
from sluice_gateway.errors import Problem
from sluice_gateway.responses_api.event_log import ends
from sluice_gateway.responses_api.store import ResponseStore, Stored
from sluice_gateway.sse import Splitter

_PATIENCE_POLLS = 5
"""Looks at a response that has ended, until its last event must have been lost with its process."""
_TYPES = {"completed": "response.completed", "incomplete": "response.incomplete"}


class EventReader:
    """Looks at the store until the events have ended."""

    def __init__(self, store: ResponseStore, poll_s: float) -> None:
        self._store = store
        self._poll_s = poll_s

    async def follow(
        self, response_id: str, after: int, look: Callable[[], Awaitable[Stored | Problem]]
    ) -> AsyncIterator[bytes]:
        """Events with a number above `after`. `look` gives the response's row as it is now."""
        patience = _PATIENCE_POLLS
        while True:
            stored = await look()
            if isinstance(stored, Problem):
                return
            events = await self._after(response_id, after)
            if events:
                after += len(events)
                yield b"".join(events)
            if await self._is_over(response_id, after):
                return
            # A row becomes final a moment before its last events are written.
            patience = patience - 1 if stored.status in FINAL else _PATIENCE_POLLS
            if not patience:
                yield _last_event(stored, after + 1)
                return
            await asyncio.sleep(self._poll_s)

    async def _after(self, response_id: str, after: int) -> list[bytes]:
        found: list[bytes] = []
        for first, events in await asyncio.shield(self._store.events(response_id, after)):
            found += Splitter().feed(events)[max(0, after + 1 - first) :]
        return found

    async def _is_over(self, response_id: str, after: int) -> bool:
        """Whether the event numbered `after` is the last."""
        last = await self._after(response_id, after - 1)
        return bool(last) and ends(last[0])


def _last_event(stored: Stored, number: int) -> bytes:
    """The end of a run whose process could not write it down."""
    kind = _TYPES.get(stored.status, "response.failed")
    return frame(kind, {"type": kind, "sequence_number": number, "response": stored.fields()})
