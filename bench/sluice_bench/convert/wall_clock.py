"""Stamps of one monotonic clock on the calendar, for formats that want them there, and back."""

from __future__ import annotations

import datetime

from sluice_bench.recording.run_record import RunMeta

NANOSECONDS = 1_000_000_000

REMARK = (
    "Times of day are right to the second: the run's start in whole seconds, and what the monotonic clock "
    "counted since. Differences are exact."
)


class WallClock:
    """Of one run."""

    def __init__(self, meta: RunMeta) -> None:
        started = datetime.datetime.fromisoformat(meta.started_utc) if meta.started_utc else None
        whole_seconds = 0 if started is None else int(started.timestamp())
        self._shift_ns = whole_seconds * NANOSECONDS - meta.start_ns

    def ns(self, stamp: int | None) -> int | None:
        """Nanoseconds since 1970."""
        return None if stamp is None else stamp + self._shift_ns

    def seconds(self, stamp: int | None) -> float | None:
        """Seconds since 1970; a float has steps of a quarter of a microsecond there."""
        return None if stamp is None else (stamp + self._shift_ns) / NANOSECONDS


def utc(epoch_ns: int) -> str:
    """As our files say when a run started."""
    started = datetime.datetime.fromtimestamp(epoch_ns // NANOSECONDS, datetime.UTC)
    return started.isoformat(timespec="seconds")
