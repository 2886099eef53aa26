"""The highest rate that still meets an objective, in a few probes.

A probe offers one rate for a while and answers with a *strain*: the percentile over its cap, which meets the
objective up to 1 (infinite when requests failed). Strain grows with the rate, but single probes are noisy, so
what is believed at each rate is the isotonic fit of all probes (neighbours that contradict each other are
averaged). The search keeps a bracket between the highest rate that meets and the lowest that does not, and
halves it, or goes where the line between its ends crosses 1 when both are near and the last two probes fell
on different sides.

An end of the bracket that three probes in a row closed in on is probed once more, since it may have been bad
luck.

Two things can make a server that is well below its limit look worse, or one beyond it look well:

- *leftovers*: a probe after one that failed would meet its queue. Such a step says `settle`: first wait until
  the server is idle.
- *hysteresis*: some servers that were once overloaded do not recover at a rate that they bore before. The
  last step offers the failed rate and goes on, without a pause, at nine tenths of the one that was met.

The caller does the probing:

    search = SaturationSearch(low=1, high=20)
    while step := search.next_step():
        search.add(strain_of(probe(step)))
    search.result()
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec

from sluice_bench.stats.elementary import exp, ln

_NEAR = 4.0
"""Strains up to so far from 1, either way, are interpolated; farther there is a cliff between them."""
_MOST = 10.0
"""Beyond its limit a server's strain says how long the probe was, not how bad it is."""
_MARGIN = 0.15
"""How close to an end of the bracket a probe may go, as a share of it."""
_IN_A_ROW = 3
"""So many probes on one side make the other end of the bracket doubtful: it may have been bad luck."""
_RECOVERY_SHARE = 0.9


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """What to probe: `rate`, once the server is idle (`settle`), or straight after `overload_rate`."""

    rate: float
    settle: bool = False
    overload_rate: float | None = None


class Probe(msgspec.Struct, frozen=True):
    """What came of it."""

    rate: float
    strain: float


class Saturation(msgspec.Struct, frozen=True, kw_only=True):
    """`rate` is the estimate, between `met` and `failed`; at a cliff it is `met`.

    Without `met` no rate was low enough and there is no estimate; without `failed` none was high enough and
    the estimate is only a lower bound. `recovers` is `None` when that was not tried.
    """

    rate: float | None
    met: float | None
    failed: float | None
    cliff: bool
    recovers: bool | None
    probes: tuple[Probe, ...]


class SaturationSearch:
    """Between `low` and `high` requests per second, in at most `probes` steps."""

    def __init__(self, low: float, high: float, probes: int = 8, precision: float = 0.005) -> None:
        """It ends sooner when the bracket is narrower than `precision` of the rate.

        Raises `ValueError` unless `0 < low < high` and `probes` is 2 or more.
        """
        if not 0 < low < high or probes < 2:
            raise ValueError(
                f"a search needs rates 0 < low < high and two probes, not {low}, {high}, {probes}"
            )
        self._low, self._high = low, high
        self._left, self._precision = probes, precision
        self._probes: list[Probe] = []
        self._step: Step | None = None
        self._recovers: bool | None = None

    def next_step(self) -> Step | None:
        """What to do next; `None` when all is done. The same until `add`."""
        if self._step is None and self._left and self._recovers is None:
            self._step = self._recovery() if self._left == 1 or self._precise() else self._search()
        return self._step

    def add(self, strain: float) -> None:
        """The outcome of the step. Raises `ValueError` without one, or of a negative strain."""
        if self._step is None or not strain >= 0:
            raise ValueError("a strain of 0 or more belongs to a step")
        if self._step.overload_rate is None:
            self._probes.append(Probe(self._step.rate, strain))
        else:
            self._recovers = strain <= 1
        self._step = None
        self._left -= 1

    def result(self) -> Saturation:
        """As far as is known."""
        met, failed = self._bracket()
        cliff = met is not None and failed is not None and not _is_near(met, failed)
        rate = None if met is None else met.rate
        if met is not None and failed is not None and not cliff:
            rate = _crossing(met, failed)
        return Saturation(
            rate=rate,
            met=met.rate if met else None,
            failed=failed.rate if failed else None,
            cliff=cliff,
            recovers=self._recovers,
            probes=tuple(self._probes),
        )

    def _search(self) -> Step:
        settle = bool(self._probes) and self._probes[-1].strain > 1
        met, failed = self._bracket()
        if (doubtful := self._doubtful(met, failed)) is not None:
            return Step(rate=doubtful, settle=settle)
        low, high = met.rate if met else self._low, failed.rate if failed else self._high
        rate = (low + high) / 2
        if met and failed and self._alternates() and _is_near(met, failed):
            margin = _MARGIN * (high - low)
            rate = min(max(_crossing(met, failed), low + margin), high - margin)
        return Step(rate=rate, settle=settle)

    def _doubtful(self, met: Probe | None, failed: Probe | None) -> float | None:
        """The end of the bracket that the last probes all closed in on, if it rests on a single one."""
        times = Counter(probe.rate for probe in self._probes)
        last = self._probes[-_IN_A_ROW:]
        sides = {probe.strain > 1 for probe in last}
        if len(last) < _IN_A_ROW or len(sides) > 1 or any(times[probe.rate] > 1 for probe in last):
            return None
        end = met if last[0].strain > 1 else failed
        return end.rate if end and times[end.rate] == 1 else None

    def _recovery(self) -> Step:
        met, failed = self._bracket()
        if met is None or failed is None:
            return self._search()
        return Step(rate=_RECOVERY_SHARE * met.rate, settle=True, overload_rate=failed.rate)

    def _precise(self) -> bool:
        met, failed = self._bracket()
        return met is not None and failed is not None and failed.rate - met.rate <= self._precision * met.rate

    def _alternates(self) -> bool:
        return len(self._probes) > 1 and (self._probes[-1].strain > 1) != (self._probes[-2].strain > 1)

    def _bracket(self) -> tuple[Probe | None, Probe | None]:
        """The highest rate believed to meet the objective, the lowest believed not to; with fitted
        strains."""
        fitted = isotonic(sorted(self._probes, key=lambda probe: probe.rate))
        met = [probe for probe in fitted if probe.strain <= 1]
        failed = [probe for probe in fitted if probe.strain > 1]
        return (met[-1] if met else None), (failed[0] if failed else None)


def isotonic(probes: Sequence[Probe]) -> list[Probe]:
    """Probes in the order of their rates, with strains that never fall.

    Pools adjacent violators, and probes of one rate, by geometric mean; strains are first limited to between
    a tenth and ten.
    """
    pools: list[tuple[float, int, float]] = []  # (sum of logs, count, highest rate)
    for probe in probes:
        total, count = ln(min(max(probe.strain, 1 / _MOST), _MOST)), 1
        while pools and (pools[-1][2] == probe.rate or pools[-1][0] / pools[-1][1] > total / count):
            earlier, more, _ = pools.pop()
            total, count = total + earlier, count + more
        pools.append((total, count, probe.rate))
    logs = [total / count for total, count, _ in pools for _ in range(count)]
    return [Probe(probe.rate, exp(log)) for probe, log in zip(probes, logs, strict=True)]


def _is_near(met: Probe, failed: Probe) -> bool:
    return met.strain >= 1 / _NEAR and failed.strain <= _NEAR


def _crossing(met: Probe, failed: Probe) -> float:
    """Where the line through the logarithms of both strains crosses 1."""
    below, above = ln(met.strain), ln(failed.strain)
    return met.rate - below * (failed.rate - met.rate) / (above - below)
