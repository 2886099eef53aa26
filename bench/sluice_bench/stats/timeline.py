"""A run cut into windows of equal length: what came in each, and how much was going on.

Windows are (start, end]: what comes at the very end of one belongs to it, so that all of them together hold
what the whole stretch holds. The last one is *partial* when the run ends inside it. It is shown and marked,
but is never a lowest or highest rate: a tenth of a second with three tokens in it is no 30 tokens per second.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

SECOND_NS = 1_000_000_000


class CountWindow(msgspec.Struct, frozen=True):
    """One window: what it counted; `None` when that is unknown."""

    start_ns: int
    end_ns: int
    count: int | None
    partial: bool

    @property
    def rate_per_s(self) -> float | None:
        """By the window's own length."""
        return None if self.count is None else self.count * SECOND_NS / (self.end_ns - self.start_ns)


def window_bounds(start_ns: int, end_ns: int, width_ns: int = SECOND_NS) -> list[tuple[int, int]]:
    """Start and end of each window. Raises `ValueError` unless `start_ns < end_ns` and `width_ns > 0`."""
    if start_ns >= end_ns or width_ns <= 0:
        raise ValueError(f"no windows of {width_ns} ns from {start_ns} to {end_ns}")
    return [(at, min(at + width_ns, end_ns)) for at in range(start_ns, end_ns, width_ns)]


def count_windows(
    stamped: Iterable[tuple[int, int | None]], start_ns: int, end_ns: int, width_ns: int = SECOND_NS
) -> list[CountWindow]:
    """Sum (stamp, count) pairs by window; what lies outside is left out, and unknown counts stay unknown.

    Raises as `window_bounds`.
    """
    bounds = window_bounds(start_ns, end_ns, width_ns)
    totals: list[int | None] = [0] * len(bounds)
    for stamp, count in stamped:
        if start_ns < stamp <= end_ns:
            at = (stamp - start_ns - 1) // width_ns
            before = totals[at]
            totals[at] = None if count is None or before is None else before + count
    return [
        CountWindow(start, end, total, partial=end - start < width_ns)
        for (start, end), total in zip(bounds, totals, strict=True)
    ]


def whole_rates(windows: Iterable[CountWindow]) -> list[float]:
    """Per second, of the windows that are not partial and whose count is known."""
    return [rate for window in windows if not window.partial and (rate := window.rate_per_s) is not None]


def peak_rate(windows: Sequence[CountWindow]) -> float | None:
    """The highest of a whole window; `None` when there is none, or one of them is unknown."""
    return max(whole_rates(windows), default=None) if _known(windows) else None


def lowest_rate(windows: Sequence[CountWindow]) -> float | None:
    """The lowest of a whole window; `None` when there is none, or one of them is unknown."""
    return min(whole_rates(windows), default=None) if _known(windows) else None


def _known(windows: Iterable[CountWindow]) -> bool:
    return all(window.count is not None for window in windows if not window.partial)


def mean_levels(spans: Iterable[tuple[int, int]], bounds: Sequence[tuple[int, int]]) -> list[float]:
    """How many of the (from, to) spans covered each window, averaged over its time.

    `bounds` are windows that follow each other; what lies outside of them is left out.
    """
    if not bounds:
        return []
    first, last, width = bounds[0][0], bounds[-1][1], bounds[0][1] - bounds[0][0]
    covered_ns = [0] * len(bounds)
    for begin, end in spans:
        begin, end = max(begin, first), min(end, last)
        for at in range(max(0, (begin - first) // width), len(bounds)):
            if bounds[at][0] >= end:
                break
            covered_ns[at] += max(0, min(end, bounds[at][1]) - max(begin, bounds[at][0]))
    return [covered / (end - start) for covered, (start, end) in zip(covered_ns, bounds, strict=True)]
