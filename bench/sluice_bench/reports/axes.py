"""An axis: from a range of values to pixels, with ticks that people can read.

Ticks of a linear axis are 1, 2 or 5 times a power of ten apart; a logarithmic one has powers of ten, and 2
and 5 times these where there is room. Pictures need no more than a pixel's precision, so the C library's
logarithm does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

_LOG_SPAN = 30.0
"""Values that differ by more than this factor are shown on a logarithmic axis, where that is possible."""


class Axis(msgspec.Struct, frozen=True, kw_only=True):
    """`low` is drawn at pixel `start`, `high` at `end`, which may be the smaller."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]
    log: bool = False

    def at(self, value: float) -> float:
        """The pixel of a value; what lies beyond the axis is at its end."""
        value = min(max(value, self.low), self.high)
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


def axis_for(
    values: Sequence[float],
    start: float,
    end: float,
    *,
    from_zero: bool = False,
    tight: bool = False,
    log: bool | None = None,
    most_ticks: int = 6,
) -> Axis:
    """For these values. `log` unsaid: when they are positive and spread far. Without values, 0 to 1.

    A `tight` axis ends with the values, others with a tick.
    """
    low, high = min(values, default=0.0), max(values, default=1.0)
    if log is None:
        log = not from_zero and low > 0 and high / low > _LOG_SPAN
    if log and low > 0:
        return _log_axis(low, high, start, end, most_ticks)
    low = min(low, 0.0) if from_zero else low
    if low == high:
        low, high = (0.0, high) if high > 0 else (low - 1, high + 1)
    step = nice_step((high - low) / max(1, most_ticks - 1))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple(round(number * step, 12) for number in range(first, last + 1))
    if tight:
        inside = tuple(tick for tick in ticks if low <= tick <= high)
        return Axis(low=low, high=high, start=start, end=end, ticks=inside)
    return Axis(low=ticks[0], high=ticks[-1], start=start, end=end, ticks=ticks)


def _log_axis(low: float, high: float, start: float, end: float, most_ticks: int) -> Axis:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high) + 1e-9) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        marks = [float(f"{step}e{decade}") for decade in decades for step in steps]
        below = max((mark for mark in marks if mark <= low), default=marks[0])
        above = min((mark for mark in marks if mark >= high and mark > below), default=marks[-1])
        ticks = [mark for mark in marks if below <= mark <= above]
        if len(ticks) <= most_ticks:
            break
    return Axis(low=below, high=above, start=start, end=end, ticks=tuple(ticks), log=True)


def nice_step(least: float) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that is no smaller."""
    if least <= 0:
        return 1.0
    power = math.floor(math.log10(least))
    for factor in (1, 2, 5, 10):
        step: float = float(f"{factor}e{power}")
        if step >= least * (1 - 1e-9):
            return step
    return float(f"1e{power + 1}")


def tick_texts(axis: Axis) -> list[str]:
    """As few digits as tell the ticks apart."""
    if axis.log or len(axis.ticks) < 2:
        return [short(tick) for tick in axis.ticks]
    step = axis.ticks[1] - axis.ticks[0]
    if max(abs(tick) for tick in axis.ticks) >= 10_000:
        return [short(tick) for tick in axis.ticks]
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return [f"{tick:,.{digits}f}" for tick in axis.ticks]


def short(value: float) -> str:
    """With k and M for thousands and millions."""
    for size, sign in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            unit = 1e3 if sign == "k" else size
            return f"{value / unit:g}{sign}"
    return f"{value:g}"
