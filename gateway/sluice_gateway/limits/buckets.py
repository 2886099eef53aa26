"""The one algorithm behind all limits, as plain arithmetic: whether a request fits, and what it takes.

Requests and tokens per minute are kept by GCRA (ITU-T I.371, the generic cell rate algorithm): one number a
bucket, the time at which it would be empty again (`tat`, theoretical arrival time). Taking n of a limit L
moves it by n x 60 s / L, rounded down so that L of them fit; a bucket is full when it lies a minute ahead.
For tokens n is the estimate, and settling moves the number by the difference, beyond a full bucket if need
be: that debt is paid in time. Concurrency is a set of leases that expire, so that a killed process gives
its slots back. Money is what was spent in the UTC day and month, plus what running requests hold at their
worst case.

`limits.lua` is the same algorithm inside Redis; a property test holds the two together, to the last
integer.

Invariants: a refused request changes nothing that a later decision sees; what is taken and given back in
full leaves the bucket as it was; spent + held never passes a cap by a reservation.

All times are microseconds since 1970, passed in. Which subjects bind a request, and what a refusal is
called, is not known here.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from sluice_gateway.limits.bounds import WINDOW_US, Bounds

DAY_US = 86_400_000_000
BUSY_WAIT_US = 1_000_000
"""The advice when only the end of a running request can make room: nobody knows when that is."""
FOREVER_US = 1 << 62
"""The expiry of a lease that cannot outlive its holder."""

_EPOCH_ORDINAL = datetime.date(1970, 1, 1).toordinal()


class Dimension(IntEnum):
    """What a subject can run out of. The numbers are shared with `limits.lua`."""

    REQUESTS = 0
    TOKENS = 1
    CONCURRENT = 2
    DAY = 3
    MONTH = 4


class Refusal(NamedTuple):
    """Why a request does not fit: of all bounds that are passed, the one that takes longest to clear."""

    subject: int
    """Index into the buckets of the request."""
    dimension: Dimension
    wait_us: int


class Bucket:
    """One subject's state."""

    __slots__ = (
        "bounds",
        "budgeted",
        "day",
        "day_spent",
        "held",
        "leased",
        "leases",
        "month",
        "month_spent",
        "request_tat",
        "request_us",
        "token_tat",
        "us_per_token",
    )

    def __init__(self, bounds: Bounds) -> None:
        self.request_tat = 0
        self.token_tat = 0
        self.leases: dict[str | int, tuple[int, int]] = {}
        """Running requests: when the lease expires, and the micro-units that it holds."""
        self.held = 0
        self.day = self.day_spent = 0
        self.month = self.month_spent = 0
        self.bind(bounds)

    def bind(self, bounds: Bounds) -> None:
        """Enforce these bounds from now on. The part of a minute that was used stays used."""
        self.bounds = bounds
        self.request_us = bounds.request_us
        self.us_per_token = bounds.us_per_token
        self.leased = bounds.leased
        self.budgeted = bounds.has_budget
        if not bounds.us_per_token:
            self.token_tat = 0

    def fits(self, now: int, token_us: int, worst: int) -> bool:
        """Whether there is room for a request."""
        horizon = now + WINDOW_US
        if self.request_tat + self.request_us > horizon or self.token_tat + token_us > horizon:
            return False
        if not self.budgeted and (self.bounds.concurrent < 0 or len(self.leases) < self.bounds.concurrent):
            return True
        return not self.leased or self._lease_wait(now, worst)[1] == 0

    def wait(self, now: int, token_us: int, worst: int) -> tuple[Dimension, int]:
        """Of the bounds that a request would pass, the one that takes longest to clear, and how long."""
        horizon = now + WINDOW_US
        waits = [
            (Dimension.REQUESTS, self.request_tat + self.request_us - horizon),
            (Dimension.TOKENS, self.token_tat + token_us - horizon),
            self._lease_wait(now, worst),
        ]
        return max(waits, key=lambda found: found[1])

    def take(self, now: int, token_us: int, worst: int, lease: str | int, expires: int) -> None:
        """Reserve. Only after `fits`."""
        tat = self.request_tat
        self.request_tat = (tat if tat > now else now) + self.request_us
        tat = self.token_tat
        self.token_tat = (tat if tat > now else now) + token_us
        if self.leased:
            held = worst if self.budgeted else 0
            self.leases[lease] = (expires, held)
            self.held += held

    def settle(self, now: int, request_us: int, token_us: int, lease: str | int, spent: int) -> None:
        """Move the buckets by differences (negative: give back), end the lease, and count money as spent."""
        self.request_tat = _moved(self.request_tat, now, request_us)
        self.token_tat = _moved(self.token_tat, now, token_us)
        if self.leased:
            self.held -= self.leases.pop(lease, (0, 0))[1]
            if self.budgeted:
                self._roll(now)
                self.day_spent += spent
                self.month_spent += spent

    def restore(self, now: int, day: int, day_spent: int, month_spent: int) -> None:
        """Money known to be spent on a day and in its month: what is counted already stays, if it is more."""
        self._roll(now)
        if self.day == day:
            self.day_spent = max(self.day_spent, day_spent)
        if self.month == month_of(day):
            self.month_spent = max(self.month_spent, month_spent)

    def idle(self, now: int) -> bool:
        """Whether forgetting the bucket would change nothing."""
        self._roll(now)
        busy = self.leases or self.month_spent or self.day_spent
        return not busy and self.request_tat <= now and self.token_tat <= now

    def _lease_wait(self, now: int, worst: int) -> tuple[Dimension, int]:
        found = self._unexpired_wait(now, worst)
        if found[1] and self._expire(now):
            return self._unexpired_wait(now, worst)
        return found

    def _unexpired_wait(self, now: int, worst: int) -> tuple[Dimension, int]:
        bounds = self.bounds
        longest = (Dimension.CONCURRENT, 0)
        if 0 <= bounds.concurrent <= len(self.leases):
            longest = (Dimension.CONCURRENT, BUSY_WAIT_US)
        if not self.budgeted:
            return longest
        self._roll(now)
        committed = self.held + worst
        for dimension, cap, spent in (
            (Dimension.DAY, bounds.day_cap, self.day_spent),
            (Dimension.MONTH, bounds.month_cap, self.month_spent),
        ):
            if cap >= 0 and spent + committed > cap:
                over = spent + worst > cap
                wait = _period_end(dimension, self.day, self.month) - now if over else BUSY_WAIT_US
                if wait > longest[1]:
                    longest = (dimension, wait)
        return longest

    def _expire(self, now: int) -> bool:
        late = [lease for lease, (expires, _) in self.leases.items() if expires <= now]
        for lease in late:
            self.held -= self.leases.pop(lease)[1]
        return bool(late)

    def _roll(self, now: int) -> None:
        """Begin a new day, and a new month, when the old one is over."""
        day = now // DAY_US
        if day == self.day:
            return
        self.day, self.day_spent = day, 0
        month = month_of(day)
        if month != self.month:
            self.month, self.month_spent = month, 0


def reserve(
    now: int, asks: Sequence[tuple[Bucket, int]], worst: int, lease: str | int, expires: int
) -> Refusal | None:
    """Take from all buckets, or from none. `asks` pairs each bucket with what the tokens move it by."""
    for bucket, token_us in asks:
        if not bucket.fits(now, token_us, worst):
            return _refusal(now, asks, worst)
    for bucket, token_us in asks:
        bucket.take(now, token_us, worst, lease, expires)
    return None


def _refusal(now: int, asks: Sequence[tuple[Bucket, int]], worst: int) -> Refusal:
    found = Refusal(0, Dimension.REQUESTS, 0)
    for index, (bucket, token_us) in enumerate(asks):
        dimension, wait_us = bucket.wait(now, token_us, worst)
        if wait_us > found.wait_us:
            found = Refusal(index, dimension, wait_us)
    return found


def _moved(tat: int, now: int, delta: int) -> int:
    """Giving back moves the number as it is; what is taken is taken from now on."""
    if delta > 0 and tat < now:
        tat = now
    return tat + delta


def month_of(day: int) -> int:
    """Months since the year 0, of a day since 1970."""
    date = datetime.date.fromordinal(day + _EPOCH_ORDINAL)
    return date.year * 12 + date.month - 1


def first_day(month: int) -> int:
    """The day since 1970 that a month begins with."""
    return datetime.date(month // 12, month % 12 + 1, 1).toordinal() - _EPOCH_ORDINAL


def _period_end(dimension: Dimension, day: int, month: int) -> int:
    return (day + 1 if dimension is Dimension.DAY else first_day(month + 1)) * DAY_US
