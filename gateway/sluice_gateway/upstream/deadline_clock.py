"""The deadlines of one connection on one lazy timer.

Arming a timer for every request, and moving it for every read, would cost more than the read. So there is at
most one timer, it only ever moves earlier, and when it fires too early it looks at the clock and sleeps on.

Phases of an exchange: `first_byte` (until the response head) then `idle` (between reads). `total` runs beside
them. Outside an exchange the clock may run one unnamed wait: the life of an idle connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf

from sluice_engines.transport import DeadlineExceeded, Deadlines, Phase


class DeadlineClock:
    """Calls `on_due` with the deadline that ran out, or with `None` when an idle life ended."""

    __slots__ = (
        "_at",
        "_deadlines",
        "_handle",
        "_limit_s",
        "_loop",
        "_on_due",
        "_phase",
        "_since",
        "_total_at",
    )

    def __init__(
        self, loop: asyncio.AbstractEventLoop, on_due: Callable[[DeadlineExceeded | None], None]
    ) -> None:
        self._loop = loop
        self._on_due = on_due
        self._handle: asyncio.TimerHandle | None = None
        self._at = inf
        self._deadlines: Deadlines | None = None
        self._phase: Phase | None = None
        self._since = 0.0
        self._limit_s = inf
        self._total_at = inf

    def start(self, deadlines: Deadlines, started_at: float) -> None:
        """Begin an exchange whose `send` was called at `started_at` (loop time): phase `first_byte`."""
        self._deadlines = deadlines
        self._total_at = inf if deadlines.total_s is None else started_at + deadlines.total_s
        self._enter("first_byte", deadlines.first_byte_s)

    def head_arrived(self) -> None:
        """The response head is complete: phase `idle`."""
        if self._deadlines is not None:
            self._enter("idle", self._deadlines.idle_s)

    def progressed(self) -> None:
        """Bytes moved: the present phase starts anew. The timer stays where it is."""
        self._since = self._loop.time()

    def pause(self) -> None:
        """The reader is behind: the present phase does not count; `total` does."""
        self._limit_s = inf

    def resume(self) -> None:
        """The reader caught up: phase `idle` counts again, from now."""
        self.head_arrived()

    def rest(self, life_s: float) -> None:
        """No exchange: `on_due(None)` after `life_s`."""
        self._deadlines = None
        self._total_at = inf
        self._enter(None, life_s)

    def suspend(self) -> None:
        """Nothing is timed until the next call; the timer stays, to be reused."""
        self._deadlines = None
        self._limit_s = self._total_at = inf

    def stop(self) -> None:
        """Nothing is timed any more, and no timer is left in the loop."""
        self.suspend()
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self._at = inf

    def _enter(self, phase: Phase | None, limit_s: float | None) -> None:
        self._phase = phase
        self._limit_s = inf if limit_s is None else limit_s
        self._since = self._loop.time()
        self._arm()

    def _due_at(self) -> float:
        return min(self._since + self._limit_s, self._total_at)

    def _arm(self) -> None:
        due_at = self._due_at()
        if due_at >= self._at:
            return
        if self._handle is not None:
            self._handle.cancel()
        self._at = due_at
        self._handle = self._loop.call_at(due_at, self._fire)

    def _fire(self) -> None:
        self._handle = None
        self._at = inf
        if self._loop.time() < self._due_at():
            self._arm()
        else:
            self._on_due(self._verdict())

    def _verdict(self) -> DeadlineExceeded | None:
        if self._deadlines is None or self._phase is None:
            return None
        if self._total_at <= self._since + self._limit_s:
            return DeadlineExceeded("total", self._deadlines.total_s or 0.0)
        return DeadlineExceeded(self._phase, self._limit_s)
