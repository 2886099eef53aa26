"""What the figures of one run are worth: intervals of percentiles and goodput, and where the run was steady.

Computed from the records like the figures themselves; nothing here is stored. Warm-up requests are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from sluice_bench.metrics import (
    Objective,
    e2e_s,
    is_good,
    ntpot_s,
    stall_s,
    tpot_s,
    ttft_service_s,
    ttft_user_s,
)
from sluice_bench.records import RequestRecord
from sluice_bench.stats.estimate import Estimate
from sluice_bench.stats.intervals import percentile_interval, share_interval
from sluice_bench.stats.percentile import percentile_of
from sluice_bench.stats.warm_up import WarmUp, warm_up

SHARES = (0.5, 0.9, 0.95, 0.99)

_LATENCIES: Mapping[str, Callable[[RequestRecord], float | None]] = {
    "ttft_user": ttft_user_s,
    "ttft_service": ttft_service_s,
    "tpot": tpot_s,
    "ntpot": ntpot_s,
    "e2e": e2e_s,
    "stall": stall_s,
}


class SteadyPart(msgspec.Struct, frozen=True, kw_only=True):
    """Where it begins, by the user's TTFT of complete requests, or by E2E where answers are plain."""

    metric: str
    warm_up: WarmUp
    last_left_out: int | None
    """Index of the last request before the steady part; `None` when it begins at once."""
    p50_ms: float
    """Of the steady part."""


class RunEstimates(msgspec.Struct, frozen=True, kw_only=True):
    """Beside the `Summary` of the same records."""

    latencies_ms: dict[str, dict[float, Estimate]]
    """By the summary's name without `_ms`, then by share. Those that no request has are left out."""
    goodput: Estimate
    steady: SteadyPart | None
    """`None` when nothing completed."""


def estimate_run(records: Sequence[RequestRecord], objective: Objective) -> RunEstimates:
    """Of a run's records. Raises `ValueError` when none was measured."""
    measured = [record for record in records if record.phase == "measured"]
    done = [record for record in measured if record.failure is None]
    return RunEstimates(
        latencies_ms={name: found for name, of in _LATENCIES.items() if (found := _percentiles(done, of))},
        goodput=share_interval(sum(is_good(record, objective) for record in measured), len(measured)),
        steady=_steady_part(done),
    )


def _percentiles(
    done: Sequence[RequestRecord], of: Callable[[RequestRecord], float | None]
) -> dict[float, Estimate]:
    values = [value * 1000 for record in done if (value := of(record)) is not None]
    return {share: percentile_interval(values, share) for share in SHARES} if values else {}


def _steady_part(done: Sequence[RequestRecord]) -> SteadyPart | None:
    for metric, of in (("user TTFT", ttft_user_s), ("E2E", e2e_s)):
        due = sorted(done, key=lambda record: (record.scheduled_ns, record.index))
        found = [(record.index, value * 1000) for record in due if (value := of(record)) is not None]
        if found:
            values = [value for _, value in found]
            start = warm_up(values)
            return SteadyPart(
                metric=metric,
                warm_up=start,
                last_left_out=found[start.length - 1][0] if start.length else None,
                p50_ms=percentile_of(values[start.length :], 0.5),
            )
    return None
