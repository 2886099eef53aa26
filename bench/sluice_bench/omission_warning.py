"""Has a closed loop hidden waits? The line that a run prints of it."""

from __future__ import annotations

from collections.abc import Sequence

from sluice_bench.metrics import NS, e2e_s, ttft_user_s
from sluice_bench.records import RequestRecord
from sluice_bench.stats.omission import omission
from sluice_bench.stats.percentile import percentile_of


def omission_line(records: Sequence[RequestRecord], closed_loop: bool, think_s: float = 0.0) -> str:
    """A warning about the waits (user TTFT; E2E of plain answers) of a closed loop's complete, measured
    requests; empty for an open loop, and where no wait was hidden.

    A user asks again when an answer has ended, so half of all requests come within the median time that one
    takes, and `think_s`: that is how often each user would have asked.
    """
    done = [record for record in records if record.failure is None and record.phase == "measured"]
    waits = [wait * 1000 for record in done if (wait := _wait_s(record)) is not None]
    taken = [record.end_ns - record.scheduled_ns for record in done if record.end_ns is not None]
    if not closed_loop or not waits or not taken:
        return ""
    interval_ms = (percentile_of([ns * NS for ns in taken], 0.5) + think_s) * 1000
    sentence = omission(waits, interval_ms).sentence() if interval_ms > 0 else ""
    metric = "user TTFT" if any(record.stream for record in done) else "E2E"
    return f"The closed loop hides waits ({metric}, ms). {sentence}" if sentence else ""


def _wait_s(record: RequestRecord) -> float | None:
    return ttft_user_s(record) if record.stream else e2e_s(record)
