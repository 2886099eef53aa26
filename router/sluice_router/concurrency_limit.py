"""How many requests an engine without metrics may have at once, found out from how its answers slow down.

    gradient = clamp(TOLERANCE * long / short, 0.5, 1)        per signal; the smallest counts
    limit   += 0.2 * (limit * gradient + sqrt(limit) - limit)

`short` is the mean since the last update, `long` a slow average of those means. What is fed in is normalised,
seconds to the first token per prompt token and seconds between tokens, never a request's duration: answers
differ a thousandfold in length, and a limit fed with durations would follow the lengths. It starts at the
configured number, never passes it, and is left alone

- while fewer than half of it are in flight, which says nothing of congestion;
- while first tokens come within `UNFELT_TTFT_S` and tokens within `UNFELT_ITL_S`: nobody would feel a
  difference, and jitter of a millisecond is no overload.

Engines that do say how busy they are (`replica.says_how_busy`) are not limited by it. It does not know what
is normal but by what was: an engine that is overloaded from its first request on looks as if that were its
speed. Source: Netflix's *concurrency-limits*, Gradient2. Does not know the clock.
"""

from __future__ import annotations

from math import sqrt

TOLERANCE = 1.5
SMOOTHING = 0.2
SAMPLES = 20
"""Answers, and"""
PERIOD_S = 1.0
"""time between two updates, both at least."""
LONG_PERIODS = 30.0
"""Updates that the slow average reaches back: 600 answers."""
UNFELT_TTFT_S = 0.25
UNFELT_ITL_S = 0.05
_BASE_TOKENS = 64
"""Added to a prompt's length: a short one waits for more than its own tokens."""


class ConcurrencyLimit:
    """The limit of one endpoint."""

    __slots__ = ("_at", "_itl", "_limit", "_most", "_samples", "_ttft", "_ttft_s")

    def __init__(self, most: int) -> None:
        """`most`: where it starts, and what it never passes."""
        self._most = most
        self._limit = float(most)
        self._ttft = _Signal()
        self._itl = _Signal()
        self._ttft_s = _Mean()
        self._samples = 0
        self._at = 0.0

    @property
    def limit(self) -> int:
        """Requests that may be in flight."""
        return max(1, int(self._limit))

    def note_ttft(self, new_tokens: int, ttft_s: float) -> None:
        """A first token came after `ttft_s`."""
        self._ttft.recent.add(ttft_s / (new_tokens + _BASE_TOKENS))
        self._ttft_s.add(ttft_s)

    def note_itl(self, itl_s: float) -> None:
        """An answer's tokens came `itl_s` apart."""
        self._itl.recent.add(itl_s)

    def update(self, in_flight: int, now: float) -> None:
        """An answer has ended, with `in_flight` there until then. Changes the limit when it is time."""
        self._samples += 1
        if self._samples < SAMPLES or now - self._at < PERIOD_S:
            return
        self._samples, self._at = 0, now
        felt = self._ttft_s.take() > UNFELT_TTFT_S or self._itl.recent.value() > UNFELT_ITL_S
        gradient = min(self._ttft.gradient(), self._itl.gradient())
        if not felt:
            gradient = 1.0
        if in_flight < self._limit / 2:
            return
        aim = self._limit * gradient + sqrt(self._limit)
        self._limit = min(float(self._most), max(1.0, self._limit + SMOOTHING * (aim - self._limit)))


class _Mean:
    """Of what came since it was last taken."""

    __slots__ = ("_count", "_sum")

    def __init__(self) -> None:
        self._count = 0
        self._sum = 0.0

    def add(self, value: float) -> None:
        self._sum += value
        self._count += 1

    def value(self) -> float:
        """0 when nothing came."""
        return self._sum / self._count if self._count else 0.0

    def take(self) -> float:
        value = self.value()
        self._count, self._sum = 0, 0.0
        return value


class _Signal:
    """A recent mean beside a slow average of it."""

    __slots__ = ("long", "recent")

    def __init__(self) -> None:
        self.recent = _Mean()
        self.long = 0.0

    def gradient(self) -> float:
        """1 while the recent mean is near the slow average, down to 0.5 when it is above. Begins anew."""
        short = self.recent.take()
        if short <= 0.0:
            return 1.0
        if self.long <= 0.0:
            self.long = short
        else:
            self.long += (short - self.long) / LONG_PERIODS
            if self.long > 2.0 * short:
                # It recovered: an average that is still high would let it be overloaded at once.
                self.long *= 0.95
        return min(1.0, max(0.5, TOLERANCE * self.long / short))
