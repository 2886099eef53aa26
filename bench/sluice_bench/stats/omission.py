"""What a closed loop did not see.

A user of a closed loop who waits asks nothing meanwhile, so a server that stands still for two seconds is
asked by each of them once, and the figures show it once: those who would have come in these two seconds are
omitted (*coordinated omission*, after Tene). Had they come at the loop's own pace, each would have waited for
what was left. `backfilled` adds these waits; where that changes the p99 by much, the loop's own p99 is not
one that users of an open service would see.

It is an estimate from the outside, to warn and not to publish: an open loop asks on schedule and needs none.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from sluice_bench.stats.percentile import percentile_of

_TOLERATED = 0.10
_MOST_PER_WAIT = 100_000
"""Of one wait, so that a wrong interval fills no memory."""


class Omission(msgspec.Struct, frozen=True):
    """A percentile as the loop saw it, and with the waits that it left out."""

    share: float
    seen: float
    corrected: float

    @property
    def warns(self) -> bool:
        """Whether the difference is over a tenth."""
        return abs(self.corrected - self.seen) > _TOLERATED * self.seen

    def sentence(self) -> str:
        """What to do about it; empty when there is nothing to warn of."""
        if not self.warns:
            return ""
        times = f"{self.corrected / self.seen:.1f} times" if self.seen else "more than"
        return (
            f"Requests that a waiting user did not send are missing: with them p{self.share * 100:g} would "
            f"be about {times} the {self.seen:.4g} shown. Measure latency with --rate."
        )


def backfilled(waits: Sequence[float], interval: float) -> list[float]:
    """`waits`, and for each L over `interval` also L - interval, L - 2 interval, … as long as that is
    positive.

    `interval` is how often a user would have asked, in the unit of the waits: the median time from one
    request to the next. Raises `ValueError` unless it is positive.
    """
    if not interval > 0:
        raise ValueError(f"the expected interval must be positive, not {interval}")
    filled: list[float] = []
    for wait in waits:
        missing = min(_MOST_PER_WAIT, max(0, -int(-wait // interval) - 1))
        filled.extend(wait - k * interval for k in range(missing + 1))
    return filled


def omission(waits: Sequence[float], interval: float, share: float = 0.99) -> Omission:
    """Of a closed loop's waits (TTFT, or E2E of plain answers). Raises `ValueError` without any."""
    return Omission(share, percentile_of(waits, share), percentile_of(backfilled(waits, interval), share))


def stalled_waits(due: Sequence[float], start: float, end: float, service: float) -> list[float]:
    """The theory of a stall: what an open loop waits for a server that stands still from `start` to `end`.

    Any number of requests is served at once, each in `service`. Nothing is taken up or finished during the
    stall; what was due then is taken up at its end, what was being served is finished then at the earliest.
    """
    waits = []
    for moment in due:
        if start <= moment < end:
            waits.append(end - moment + service)
        elif start - service < moment < start:
            waits.append(max(moment + service, end) - moment)
        else:
            waits.append(service)
    return waits
