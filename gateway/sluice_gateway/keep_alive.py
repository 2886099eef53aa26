"""Comments for the client of a stream that would otherwise hear nothing and give up.

A stream's status is held until the engine's first event, so that a failure can still be a real status; but
not for longer than `hold_s`: then the head leaves with a comment, and a comment follows whenever nothing was
written for a whole interval. Comments are no content: another engine may still take over, and the deadline on
the first token does not hear of them. Source: the HTML standard, "Server-sent events", authoring notes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from sluice_gateway.response import Responder

COMMENT = b": keep-alive\n\n"


class KeepAlive:
    """The timer of one stream. It is looked at once an interval, whatever the stream does."""

    __slots__ = ("_client", "_every_s", "_loop", "_sending", "_timer", "_writes")

    def __init__(
        self, client: Responder, loop: asyncio.AbstractEventLoop, hold_s: float, every_s: float
    ) -> None:
        self._client = client
        self._loop = loop
        self._every_s = every_s
        self._writes = 0
        self._sending: asyncio.Future[None] | None = None
        self._timer = loop.call_later(hold_s, self._look)

    def stop(self) -> None:
        """No comment from here on. Idempotent."""
        self._timer.cancel()

    def _look(self) -> None:
        client = self._client
        if client.finished:
            return
        if not client.started:
            self._send(client.start_events())
        if client.writes == self._writes and not client.inside_event:
            self._send(client.comment(COMMENT))
        self._writes = client.writes
        self._timer = self._loop.call_later(self._every_s, self._look)

    def _send(self, waiting: Awaitable[None] | None) -> None:
        """A wire that only works when waited for is waited for in the background."""
        if waiting is not None and not isinstance(waiting, asyncio.Future):
            self._sending = asyncio.ensure_future(waiting)
