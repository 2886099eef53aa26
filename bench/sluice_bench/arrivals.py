"""When requests are due in an open loop: nanosecond offsets, computed whole before the run starts.

Offsets are sums of gaps that were each rounded to a nanosecond. Gaps are never rescaled to make a run end at
a round time: a Poisson process stretched to fit is no longer one. So a longer schedule begins with the
shorter one. The same seed gives the same schedule on any machine: only `Random.random` is drawn from, the one
method whose sequence Python promises to keep.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterable, Sequence
from decimal import Decimal, DecimalException
from itertools import accumulate, pairwise
from typing import Literal

import msgspec

from sluice_bench.rate_stages import Growth, Stage, StageClock

NS_PER_S = 1_000_000_000

_LATEST_S = 10**12

Kind = Literal["constant", "poisson", "gamma", "trace", "ramp", "stages"]


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """When each request of an open loop is due, and how that was found."""

    kind: Kind
    rate_per_s: float | None
    """The mean rate that was asked for; `None` where there is no single one."""
    cv: float | None
    """Coefficient of variation of the gaps; `None` where they follow no single distribution."""
    seed: int
    """0 where nothing is drawn."""
    offsets_ns: tuple[int, ...]
    sha256: str
    """Of the offsets."""

    @classmethod
    def of(
        cls,
        kind: Kind,
        offsets_ns: Sequence[int],
        *,
        rate_per_s: float | None = None,
        cv: float | None = None,
        seed: int = 0,
    ) -> Schedule:
        """With the digest of `offsets_ns`: decimal numbers, each ended by a newline."""
        text = "".join(f"{offset}\n" for offset in offsets_ns)
        return cls(
            kind=kind,
            rate_per_s=rate_per_s,
            cv=cv,
            seed=seed,
            offsets_ns=tuple(offsets_ns),
            sha256=hashlib.sha256(text.encode()).hexdigest(),
        )


def constant(rate: float, count: int) -> tuple[int, ...]:
    """`count` offsets, `rate` per second, evenly spaced. Raises `ValueError` unless `rate` is positive."""
    _check(rate, count)
    return tuple(round(index * NS_PER_S / rate) for index in range(count))


def poisson(rate: float, count: int, seed: int) -> tuple[int, ...]:
    """`count` offsets of a Poisson process of `rate` per second, first gap included. Raises `ValueError`."""
    _check(rate, count)
    source = random.Random(seed)
    return _sums(_exponential(source) / rate for _ in range(count))


def gamma(rate: float, cv: float, count: int, seed: int) -> tuple[int, ...]:
    """`count` offsets with gamma-distributed gaps of mean `1 / rate`, first included. Raises `ValueError`.

    `cv` is standard deviation over mean: 1 is a Poisson process, above it requests come in bursts, below it
    more evenly. vLLM's `--burstiness` is `1 / cv²`.
    """
    _check(rate, count)
    if not (cv > 0 and math.isfinite(cv)):
        raise ValueError(f"the coefficient of variation must be a positive number, not {cv}")
    shape = 1 / cv**2
    source = random.Random(seed)
    return _sums(_gamma(source, shape) / (shape * rate) for _ in range(count))


def ramp(
    from_rate: float, to_rate: float, seconds: float, count: int, seed: int, growth: Growth = "linear"
) -> tuple[int, ...]:
    """A Poisson process whose rate goes from one to the other and then stays. Raises `ValueError`."""
    return stages((Stage(from_rate=from_rate, to_rate=to_rate, seconds=seconds, growth=growth),), count, seed)


def stages(plan: Sequence[Stage], count: int, seed: int) -> tuple[int, ...]:
    """A Poisson process through stages of changing rate, then at the last rate. Raises `ValueError`.

    Each gap is found from where the process stands: so much later that the expected number of requests has
    grown by an exponential draw of mean 1.
    """
    _check(1.0, count)
    clock, source = StageClock(plan), random.Random(seed)
    offsets, now_ns = [], 0
    for _ in range(count):
        now_ns = clock.after(now_ns, _exponential(source))
        offsets.append(now_ns)
    return tuple(offsets)


def trace(stamps_ns: Sequence[int], count: int) -> tuple[int, ...]:
    """The first `count` of recorded times, counted from the first. Raises `ValueError`."""
    if len(stamps_ns) < count:
        raise ValueError(f"the trace has {len(stamps_ns)} times, too few for {count} requests")
    kept = stamps_ns[:count]
    if any(later < earlier for earlier, later in pairwise(kept)):
        raise ValueError("the times of a trace must not go back")
    return tuple(stamp - kept[0] for stamp in kept)


def read_trace(text: str) -> tuple[int, ...]:
    """Nanoseconds from lines that are each a time in seconds, from any origin. Raises `ValueError`."""
    lines = ((number, line.strip()) for number, line in enumerate(text.splitlines(), start=1))
    return tuple(_nanoseconds(number, line) for number, line in lines if line)


def _nanoseconds(number: int, line: str) -> int:
    try:
        seconds = Decimal(line)
        if abs(seconds) < _LATEST_S:
            return int((seconds * NS_PER_S).to_integral_value())
    except DecimalException:  # no number, or not one that can be compared
        pass
    raise ValueError(f"line {number} of the trace is not a time in seconds: {line!r}")


def _sums(gaps_s: Iterable[float]) -> tuple[int, ...]:
    return tuple(accumulate(round(gap * NS_PER_S) for gap in gaps_s))


def _exponential(source: random.Random) -> float:
    """Mean 1."""
    return -math.log(1.0 - source.random())


def _gamma(source: random.Random, shape: float) -> float:
    """Scale 1, by Marsaglia and Tsang's squeeze of a normal draw (ACM TOMS 26, 2000); mean `shape`."""
    if shape < 1:
        return _gamma(source, shape + 1) * math.pow(_positive(source), 1 / shape)
    d = shape - 1 / 3
    while True:
        x = _normal(source)
        v = (1 + x / math.sqrt(9 * d)) ** 3
        if v > 0 and math.log(_positive(source)) < x * x / 2 + d - d * v + d * math.log(v):
            return d * v


def _normal(source: random.Random) -> float:
    """Box and Muller's, of which the second value is left unused."""
    return math.sqrt(2 * _exponential(source)) * math.cos(math.tau * source.random())


def _positive(source: random.Random) -> float:
    """Uniform in (0, 1]."""
    return 1.0 - source.random()


def _check(rate: float, count: int) -> None:
    if not (rate > 0 and math.isfinite(rate)):
        raise ValueError(f"the request rate must be a positive number, not {rate}")
    if count < 0:
        raise ValueError(f"the number of requests must not be negative, not {count}")
