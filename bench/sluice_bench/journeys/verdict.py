"""Whether a Locust run is good: objectives over all its requests, and what else makes it worth nothing.

Locust keeps times rounded to two digits, so a percentile here is good enough for a limit and for nothing
else. Percentiles cover complete requests, and are nearest-rank; failed ones count as failed. A run is also
bad when nothing was complete, when Locust itself used too much CPU to stamp in time, or broke.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from sluice_bench.stats.percentile import percentile

_SHARE = 0.95


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a good run keeps to."""

    failed_share: float
    """Of all requests that were begun, those that clients left included."""
    ttft_p95_ms: float
    e2e_p95_ms: float


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One line of Locust's statistics: one kind of figure of one journey."""

    kind: str
    name: str
    count: int
    """Failed ones included."""
    failed: int
    times_ms: Mapping[float, int]
    """Rounded time, and how often, of those that did not fail."""


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One objective or condition."""

    line: str
    good: bool


def checks(rows: Sequence[Row], limits: Limits, troubles: Sequence[str]) -> list[Check]:
    """What is asked of a run, and whether it kept to it. `troubles` of the tool itself are never good."""
    begun = sum(row.count for row in rows if row.kind in ("e2e", "left"))
    failed = sum(row.failed for row in rows if row.kind in ("e2e", "left"))
    share = failed / begun if begun else 0.0
    return [
        Check(
            line=f"failed: {failed} of {begun} requests ({share:.1%}, at most {limits.failed_share:.1%})",
            good=begun > 0 and share <= limits.failed_share,
        ),
        _percentile("TTFT", _times(rows, "ttft"), limits.ttft_p95_ms, required=_has_streams(rows)),
        _percentile("E2E", _times(rows, "e2e"), limits.e2e_p95_ms, required=_has(rows, "e2e")),
        *(Check(line=trouble, good=False) for trouble in troubles),
    ]


def _has(rows: Iterable[Row], kind: str) -> bool:
    return any(row.kind == kind and row.count for row in rows)


def _has_streams(rows: Iterable[Row]) -> bool:
    return _has([row for row in rows if row.name != "embeddings"], "e2e")


def _times(rows: Iterable[Row], kind: str) -> list[tuple[float, int]]:
    return [entry for row in rows if row.kind == kind for entry in row.times_ms.items()]


def _percentile(name: str, times: list[tuple[float, int]], limit_ms: float, *, required: bool) -> Check:
    count = sum(weight for _, weight in times)
    if not count:
        return Check(line=f"{name}, p95: of no request (at most {limit_ms:g} ms)", good=not required)
    value = percentile(times, _SHARE)
    return Check(
        line=f"{name}, p95: {value:g} ms of {count} requests (at most {limit_ms:g} ms)",
        good=value <= limit_ms,
    )
