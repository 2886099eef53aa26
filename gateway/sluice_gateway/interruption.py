"""Ending a request's task from outside: its client left or stopped reading, or the gateway shuts down.

Invariant: at most one interruption, the first one's cause; none once the answer is complete. What unwinds in
the cancelled task frees the queue place, the limits and the engine's slot. Who notices that a client has left
is the carrier's business (`native_client.py`, `asgi_client.py`).
"""

from __future__ import annotations

import asyncio
from typing import Any

from sluice_gateway.errors import Failure


class Interruption:
    """The handle on one request's task."""

    __slots__ = ("_task", "answered", "cause")

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self._task = task
        self.answered = False
        """The last byte has been given to the carrier: there is nothing left to interrupt."""
        self.cause: Failure | None = None
        """Why the task was cancelled; `None` when it was not, or not from here."""

    def interrupt(self, cause: Failure) -> None:
        """Cancel the request's task, once."""
        if self.cause is None and not self.answered:
            self.cause = cause
            self._task.cancel()
