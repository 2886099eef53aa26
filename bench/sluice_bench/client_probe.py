"""Our own client, measured: one load in a process of its own, and what it cost there.

    python -m sluice_bench.client_probe '{"url": "http://127.0.0.1:9000", "requests": 100, "per_s": 50}'

Prints a `ProbeResult` as JSON.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

import msgspec

from sluice_bench import arrivals
from sluice_bench.answers import read_answers
from sluice_bench.chunk_delay import read_stream, sent_delays_ms, while_all_ran
from sluice_bench.connection import Exchange
from sluice_bench.load_run import run_blocking
from sluice_bench.loops import LoadPlan, OpenLoop
from sluice_bench.metrics import dispatch_lag_s
from sluice_bench.processes import raise_file_limit
from sluice_bench.stats.percentile import percentile_of
from sluice_bench.target import Target
from sluice_bench.workload import Asking, Shape, chat_requests


class ProbeLoad(msgspec.Struct, frozen=True, kw_only=True):
    """An open loop at a constant rate against the null server."""

    url: str
    requests: int
    per_s: float
    stamped: bool = False
    """The null server stamps its events: tell how late they were taken in."""


class ProbeResult(msgspec.Struct, frozen=True, kw_only=True):
    """What it cost, user and system CPU, and how well it went."""

    hot_cpu_s: float
    """While the load ran, connecting included."""
    parse_cpu_s: float = 0.0
    """From reads to records, afterwards; the client in the common style does it while the load runs."""
    wall_s: float
    events: int
    failures: int
    lag_p50_ms: float | None = None
    """Dispatch minus schedule."""
    lag_p99_ms: float | None = None
    late_p50_ms: float | None = None
    """From the null server's sending to our stamp, while all streams ran."""
    late_p99_ms: float | None = None
    timed_events: int = 0
    """How many were that."""


def probe(load: ProbeLoad) -> ProbeResult:
    """Carry it out. Raises `OSError` when the null server is not there."""
    target = Target.parse(load.url)
    plan = LoadPlan(
        target=target,
        requests=chat_requests(
            target, Shape(prompt_words=14, output_tokens=1), Asking(model="null"), load.requests, seed=1
        ),
        loop=OpenLoop(arrivals.constant(load.per_s, load.requests)),
    )
    start_s, before = time.perf_counter(), time.process_time()
    exchanges = run_blocking(plan)
    ran, wall_s = time.process_time(), time.perf_counter() - start_s
    records = read_answers(exchanges)
    parse_cpu_s = time.process_time() - ran
    lags = [lag * 1000 for record in records if (lag := dispatch_lag_s(record)) is not None]
    delays = _delays_ms(exchanges) if load.stamped else []
    return ProbeResult(
        hot_cpu_s=ran - before,
        parse_cpu_s=parse_cpu_s,
        wall_s=wall_s,
        events=sum(record.n_events for record in records),
        failures=sum(record.failure is not None for record in records),
        lag_p50_ms=percentile_of(lags, 0.5),
        lag_p99_ms=percentile_of(lags, 0.99),
        late_p50_ms=percentile_of(delays, 0.5) if delays else None,
        late_p99_ms=percentile_of(delays, 0.99) if delays else None,
        timed_events=len(delays),
    )


def _delays_ms(exchanges: Sequence[Exchange]) -> list[float]:
    return sent_delays_ms(while_all_ran([read_stream(exchange) for exchange in exchanges]))


def main() -> None:
    """Entry point."""
    raise_file_limit()
    load = msgspec.json.decode(sys.argv[1], type=ProbeLoad)
    sys.stdout.write(msgspec.json.encode(probe(load)).decode())


if __name__ == "__main__":
    main()
