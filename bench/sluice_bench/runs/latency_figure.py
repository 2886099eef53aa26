"""One figure of a run's latency, by a name that can be typed: `ttft-p50`, `e2e-mean`.

The metrics are those of `metrics.py`, with the user's TTFT.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import msgspec

from sluice_bench.metrics import e2e_s, ntpot_s, tpot_s, ttft_user_s
from sluice_bench.records import RequestRecord
from sluice_bench.stats.intervals import mean
from sluice_bench.stats.percentile import percentile_of

Latency = Literal["ttft", "tpot", "ntpot", "e2e"]

_SECONDS: Mapping[Latency, Callable[[RequestRecord], float | None]] = {
    "ttft": ttft_user_s,
    "tpot": tpot_s,
    "ntpot": ntpot_s,
    "e2e": e2e_s,
}
_SHARES: Mapping[str, float | None] = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "mean": None}


class LatencyFigure(msgspec.Struct, frozen=True):
    """A percentile of one latency over complete requests; without a `share` its mean."""

    latency: Latency
    share: float | None

    @classmethod
    def parse(cls, text: str) -> LatencyFigure:
        """From `ttft-p50`. Raises `ValueError`, naming those there are."""
        latency, _, statistic = text.partition("-")
        for known in _SECONDS:
            if latency == known and statistic in _SHARES:
                return cls(known, _SHARES[statistic])
        raise ValueError(
            f"{text!r} is no figure; write one of {', '.join(_SECONDS)}, a hyphen, and one of "
            f"{', '.join(_SHARES)}: ttft-p50"
        )

    @property
    def name(self) -> str:
        """As `parse` takes it."""
        statistic = next(name for name, share in _SHARES.items() if share == self.share)
        return f"{self.latency}-{statistic}"

    @property
    def title(self) -> str:
        """For a table: `TTFT p50`."""
        return self.name.replace(self.latency, self.latency.upper()).replace("-", " ")

    def of(self, record: RequestRecord) -> float | None:
        """Seconds of one request; `None` when it is not complete or has no such latency."""
        return None if record.failure is not None else _SECONDS[self.latency](record)

    def over(self, records: Sequence[RequestRecord]) -> float | None:
        """Seconds, over the requests that have it; `None` when none has."""
        found = [value for record in records if (value := self.of(record)) is not None]
        if not found:
            return None
        return mean(found) if self.share is None else percentile_of(found, self.share)
