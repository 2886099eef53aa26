"""From the options of a command to the schedule of an open loop."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from sluice_bench import arrivals
from sluice_bench.arrivals import Schedule
from sluice_bench.rate_stages import Growth

Arrival = Literal["poisson", "constant", "gamma"]


class ScheduleOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Exactly one of rate, ramp and trace makes an open loop; none of them makes a closed one."""

    rate: float | None = None
    arrival: Arrival = "poisson"
    cv: float | None = None
    ramp: str | None = None
    """`FROM:TO:SECONDS`, and `:exponential` after it where it is not linear."""
    trace: Path | None = None

    @property
    def open_loops(self) -> int:
        """How many of them were given."""
        return sum(option is not None for option in (self.rate, self.ramp, self.trace))


def make_schedule(options: ScheduleOptions, count: int, seed: int) -> Schedule | None:
    """The schedule, or `None` for a closed loop. Raises `ValueError` and, without the trace, `OSError`."""
    if (options.arrival == "gamma") != (options.cv is not None):
        raise ValueError("--arrival gamma and --cv belong together")
    if options.arrival != "poisson" and options.rate is None:
        raise ValueError("--arrival says how the gaps of --rate are drawn; give it a --rate")
    if options.trace is not None:
        stamps = arrivals.read_trace(options.trace.read_text(encoding="utf-8"))
        return Schedule.of("trace", arrivals.trace(stamps, count))
    if options.ramp is not None:
        return Schedule.of("ramp", _ramp(options.ramp, count, seed), seed=seed)
    if options.rate is None:
        return None
    return _steady(options.rate, options.arrival, options.cv, count, seed)


def _steady(rate: float, arrival: Arrival, cv: float | None, count: int, seed: int) -> Schedule:
    if arrival == "constant":
        return Schedule.of("constant", arrivals.constant(rate, count), rate_per_s=rate, cv=0.0)
    if cv is None:
        offsets = arrivals.poisson(rate, count, seed)
        return Schedule.of("poisson", offsets, rate_per_s=rate, cv=1.0, seed=seed)
    offsets = arrivals.gamma(rate, cv, count, seed)
    return Schedule.of("gamma", offsets, rate_per_s=rate, cv=cv, seed=seed)


def _ramp(text: str, count: int, seed: int) -> tuple[int, ...]:
    numbers, growth = text.split(":"), "linear"
    if len(numbers) == 4:
        growth = numbers.pop()
    try:
        from_rate, to_rate, seconds = (float(number) for number in numbers)
        kind = msgspec.convert(growth, Growth)
    except (ValueError, msgspec.ValidationError) as error:
        raise ValueError(f"{text!r} is not a ramp; write it as FROM:TO:SECONDS[:exponential]") from error
    return arrivals.ramp(from_rate, to_rate, seconds, count, seed, kind)
