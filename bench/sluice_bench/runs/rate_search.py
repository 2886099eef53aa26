"""The highest rate of a server that meets an objective, by real open-loop probes.

The search is that of `stats/saturation.py`; here is what a probe amounts to. A probe is held against its
objective as a whole: the percentile over all its requests, of which one that failed counts as infinitely
slow. A probe whose client was too slow for it is repeated once; a second void one ends the search.

Knows nothing of servers: a `Prober` asks them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from sluice_bench.metrics import Objective, summarise, tpot_s, ttft_user_s
from sluice_bench.records import RequestRecord
from sluice_bench.stats.percentile import percentile_of
from sluice_bench.stats.saturation import SaturationSearch, Step
from sluice_bench.stats.slo_profiles import SloProfile


class ProbePoint(msgspec.Struct, frozen=True, kw_only=True):
    """One probe: a point of the curve of latency over throughput. Times are milliseconds."""

    rate: float
    """Offered, requests per second."""
    overload_rate: float | None
    """Offered straight before; such a point is about recovery and belongs on no curve."""
    settled: bool
    """Whether the server was idle before; `False` when that was waited for in vain."""
    scheduled: int
    failures: dict[str, int]
    void: bool
    ttft_ms: float | None
    """The objective's percentile; `None` when so many failed that it is infinite, or nothing has it."""
    tpot_ms: float | None
    strain: float | None
    """By the caps: met up to 1; `None` is infinite."""
    ttft_p50_ms: float | None
    tpot_p50_ms: float | None
    e2e_p50_ms: float | None
    tokens_per_s: float | None
    complete_per_s: float | None
    """Over the whole run, its drain included: below `rate` when the server does not keep up."""
    good_share: float
    """Requests that met both caps themselves."""

    @property
    def met(self) -> bool:
        """Whether the objective was."""
        return self.strain is not None and self.strain <= 1


class RateSearch(msgspec.Struct, frozen=True, kw_only=True):
    """What was found; fields as in `stats.saturation.Saturation`."""

    profile: SloProfile
    low: float
    high: float
    points: tuple[ProbePoint, ...]
    """In the order in which they were probed, void ones included."""
    rate: float | None
    met: float | None
    failed: float | None
    cliff: bool
    recovers: bool | None
    void: bool
    """The search ended on two void probes in a row; what was found until then is no answer."""


class Prober(Protocol):
    """Who asks the server."""

    def probe(self, step: Step) -> ProbePoint:
        """Carry out a step, the settling included."""


def run_search(
    profile: SloProfile,
    search: SaturationSearch,
    low: float,
    high: float,
    prober: Prober,
    on_point: Callable[[ProbePoint], None],
) -> RateSearch:
    """Probe until the search is over; `on_point` is told of every probe."""
    points: list[ProbePoint] = []
    void = False
    while not void and (step := search.next_step()):
        point = _probed(prober, step, points, on_point)
        if point.void:
            point = _probed(prober, msgspec.structs.replace(step, settle=True), points, on_point)
        void = point.void
        if not void:
            search.add(math.inf if point.strain is None else point.strain)
    found = search.result()
    return RateSearch(
        profile=profile,
        low=low,
        high=high,
        points=tuple(points),
        rate=found.rate,
        met=found.met,
        failed=found.failed,
        cliff=found.cliff,
        recovers=found.recovers,
        void=void,
    )


def _probed(
    prober: Prober, step: Step, points: list[ProbePoint], on_point: Callable[[ProbePoint], None]
) -> ProbePoint:
    point = prober.probe(step)
    points.append(point)
    on_point(point)
    return point


def point_of(
    step: Step, records: Sequence[RequestRecord], profile: SloProfile, *, void: bool, settled: bool
) -> ProbePoint:
    """From the requests of a step that count. Raises `ValueError` without any."""
    summary = summarise(records, Objective(ttft_ms=profile.ttft_ms, tpot_ms=profile.tpot_ms))
    ttft, tpot = _ttft_ms(records, profile.share), _tpot_ms(records, profile.share)
    whole = summary.whole
    return ProbePoint(
        rate=step.rate,
        overload_rate=step.overload_rate,
        settled=settled,
        scheduled=summary.scheduled,
        failures=summary.failures,
        void=void,
        ttft_ms=_finite(ttft),
        tpot_ms=_finite(tpot),
        strain=_finite(profile.strain(ttft, tpot)),
        ttft_p50_ms=summary.ttft_user_ms.p50 if summary.ttft_user_ms else None,
        tpot_p50_ms=summary.tpot_ms.p50 if summary.tpot_ms else None,
        e2e_p50_ms=summary.e2e_ms.p50 if summary.e2e_ms else None,
        tokens_per_s=whole.tokens_per_s if whole else None,
        complete_per_s=summary.complete / whole.seconds if whole else None,
        good_share=summary.goodput_share,
    )


def _ttft_ms(records: Sequence[RequestRecord], share: float) -> float:
    """Over all requests: one without a first token has waited for ever."""
    waits = (None if record.failure is not None else ttft_user_s(record) for record in records)
    return percentile_of([math.inf if wait is None else wait * 1000 for wait in waits], share)


def _tpot_ms(records: Sequence[RequestRecord], share: float) -> float | None:
    """Over all but answers of one arrival, which have none; `None` when all are such."""
    paces = [(record.failure, tpot_s(record)) for record in records]
    known = [
        math.inf if failure is not None or pace is None else pace * 1000
        for failure, pace in paces
        if failure is not None or pace is not None
    ]
    return percentile_of(known, share) if known else None


def _finite(value: float | None) -> float | None:
    return None if value is None or math.isinf(value) else value
