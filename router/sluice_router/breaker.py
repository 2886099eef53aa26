"""A consecutive-failure breaker for one endpoint.

    CLOSED ── failures in a row ──► OPEN ── open time over ──► HALF_OPEN ── probe succeeds ──► CLOSED
                                     ▲                             │
                                     └──────── probe fails ────────┘   (twice as long, up to a bound)

Closed, everything may pass; open, nothing; half-open, one request at a time, the probe, whose end decides.

A result counts only in the state in which its request was let in: `admit` gives a permit, and a permit of an
earlier state is worth nothing. So what was sent before the breaker opened can neither close it nor keep it
open. What says nothing of the endpoint (`dismiss`) leaves the count as it is, and the next request probes.

It does not know what a failure is (`failure.py` does), and does not watch the clock: whoever owns it calls
`half_open` when `half_open_at` has come. Source: Nygard, *Release It!*; the growth is Envoy's outlier
ejection.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

JITTER = 0.2
"""Open times vary by this share to both sides, so that gateways do not all probe at once."""


class BreakerState(StrEnum):
    """Low cardinality: safe as a metric label."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """State of one endpoint's breaker."""

    __slots__ = (
        "_epoch",
        "_limit",
        "_max_open_s",
        "_open_s",
        "_probe",
        "_random",
        "_times_opened",
        "failures",
        "forced",
        "half_open_at",
        "state",
    )

    def __init__(self, limit: int, open_s: float, max_open_s: float, random: Callable[[], float]) -> None:
        """`limit`: failures in a row that open it. `random` gives numbers from 0 to 1."""
        self._limit = limit
        self._open_s = open_s
        self._max_open_s = max_open_s
        self._random = random
        self._epoch = 0
        self._probe: int | None = None
        self._times_opened = 0
        self.state = BreakerState.CLOSED
        self.failures = 0
        """Counted failures in a row."""
        self.forced = False
        """Somebody set the state by hand; nothing but `release` changes it."""
        self.half_open_at: float | None = None
        """When it will let a probe pass; `None` unless open by itself."""

    @property
    def permits(self) -> bool:
        """Whether a request may pass now."""
        state = self.state
        if state is BreakerState.CLOSED:
            return True
        return state is BreakerState.HALF_OPEN and self._probe is None

    def admit(self) -> int:
        """Let a request pass. Returns the permit to report its end with."""
        if self.state is BreakerState.HALF_OPEN:
            self._epoch += 1
            self._probe = self._epoch
        return self._epoch

    def answered(self, permit: int) -> int:
        """The request has got content, but has not ended: that is enough of a probe.

        The endpoint's record is not cleared by it. Returns the permit to go on with.
        """
        if permit == self._probe:
            self._change(BreakerState.CLOSED)
            return self._epoch
        return permit

    def succeed(self, permit: int) -> None:
        """The request ended well."""
        if permit != self._epoch:
            return
        if self._probe is not None:
            self._change(BreakerState.CLOSED)
        self.failures = self._times_opened = 0

    def fail(self, permit: int, now: float) -> None:
        """The request failed, and it is held against the endpoint."""
        if permit != self._epoch or self.forced:
            return
        self.failures += 1
        if self._probe is not None or self.failures >= self._limit:
            self._open(now)

    def dismiss(self, permit: int) -> None:
        """The request ended in a way that says nothing of the endpoint."""
        if permit == self._probe:
            self._probe = None

    def half_open(self, now: float) -> bool:
        """Let a probe pass if it is time. Whether that changed the state."""
        if self.half_open_at is None or now < self.half_open_at:
            return False
        self._change(BreakerState.HALF_OPEN)
        return True

    def hasten(self, now: float) -> None:
        """There is other news that the endpoint is well again: let a probe find out now."""
        if self.half_open_at is not None:
            self.half_open_at = now

    def force(self, state: BreakerState) -> None:
        """Keep it in a state, open or closed, until `release`. Raises `ValueError` on half-open."""
        if state is BreakerState.HALF_OPEN:
            raise ValueError("a breaker can be forced open or closed only")
        self.failures = self._times_opened = 0
        self._change(state)
        self.forced = True

    def release(self) -> None:
        """Close it, and let it work by itself again."""
        self.forced = False
        self._change(BreakerState.CLOSED)

    def _open(self, now: float) -> None:
        open_s = min(self._max_open_s, self._open_s * 2.0 ** min(self._times_opened, 32))
        self._times_opened += 1
        self._change(BreakerState.OPEN)
        self.half_open_at = now + open_s * (1.0 + JITTER * (2.0 * self._random() - 1.0))

    def _change(self, state: BreakerState) -> None:
        self._epoch += 1
        self._probe = None
        self.half_open_at = None
        self.failures = 0
        self.state = state
