"""One subject's limits in the units of `buckets.py`: microseconds, and micro-units of money."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from sluice_gateway.identity import LimitValues
from sluice_gateway.limits.money import micro

WINDOW_US = 60_000_000
"""A full bucket: one minute's worth may come at once after a quiet minute."""

T = TypeVar("T")


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """One subject's limits in the algorithm's own units."""

    requests: int | None = None
    """Per minute, as configured."""
    tokens: int | None = None
    request_us: int = 0
    """What one request moves the bucket by; 0 without a bound."""
    us_per_token: float = 0.0
    concurrent: int = -1
    """-1 without a bound; likewise the caps, in micro-units."""
    day_cap: int = -1
    month_cap: int = -1

    @property
    def leased(self) -> bool:
        """Whether running requests have to be known one by one."""
        return self.concurrent >= 0 or self.has_budget

    @property
    def has_budget(self) -> bool:
        """Whether money is bounded."""
        return self.day_cap >= 0 or self.month_cap >= 0

    def token_us(self, tokens: int) -> int:
        """What so many tokens move the bucket by."""
        return int(tokens * self.us_per_token)


def bounds_of(values: LimitValues, share: int = 1) -> Bounds | None:
    """Limits in the algorithm's units, or `None` when nothing is bounded.

    `share` is the number of processes that enforce the same limit without knowing of each other: each one's
    bucket drains so much slower. Of what is counted in wholes each gets at least one.
    """
    if values == LimitValues():
        return None
    return Bounds(
        requests=_part(values.requests_per_min, share, None),
        tokens=_part(values.tokens_per_min, share, None),
        request_us=min(WINDOW_US, int(_us_per(values.requests_per_min) * share)),
        us_per_token=_us_per(values.tokens_per_min) * share,
        concurrent=_part(values.concurrent, share, -1),
        day_cap=_cap(values.budget_per_day, share),
        month_cap=_cap(values.budget_per_month, share),
    )


def _part(whole: int | None, share: int, absent: T) -> int | T:
    return absent if whole is None else max(1, whole // share)


def _us_per(per_min: int | None) -> float:
    return 0.0 if per_min is None else WINDOW_US / max(1, per_min)


def _cap(money: float | None, share: int) -> int:
    return -1 if money is None else micro(money) // share
