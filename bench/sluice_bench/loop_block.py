"""How long a server's event loop stands still, seen from outside and by the server itself.

From outside: `GET /health` every millisecond while the load runs; the slowest answer bounds the longest
block from above, and holds scheduling noise of the machine too. How much of that there is tells an idle
server asked in the same way from the same client. By the server itself: the histogram of its loop lag on
`/metrics`, where it has one; that samples rarely, so it can miss a block.
"""

from __future__ import annotations

import asyncio
import re
from urllib.error import URLError
from urllib.request import urlopen

import msgspec

from sluice_bench.connection import Exchange
from sluice_bench.load_run import LoadRun, frozen_gc, new_event_loop
from sluice_bench.loops import ClosedLoop, LoadPlan
from sluice_bench.target import Target, WireRequest, http_request

PROBE_INTERVAL_S = 0.001

_PROBES = 60_000
_LAG_BUCKET = re.compile(r"^sluice_gateway_event_loop_lag_seconds_bucket\{.*?le=\"([^\"]+)\"\} (\S+)$", re.M)


class ProbedLoad(msgspec.Struct, frozen=True):
    """A load's exchanges, and the probes beside it."""

    load: list[Exchange]
    probes: list[Exchange]
    """Of the loaded server."""
    own: list[Exchange]
    """Of the idle server: the client's own error."""


def run_probed(plan: LoadPlan, idle: Target) -> ProbedLoad:
    """Carry out `plan` while probing its target and an idle server."""

    async def main() -> ProbedLoad:
        runs = [LoadRun(_probe_plan(target)) for target in (plan.target, idle)]
        tasks = [asyncio.create_task(run.run()) for run in runs]
        try:
            load = await LoadRun(plan).run()
        finally:
            for run in runs:
                run.stop()
            probes, own = [await task for task in tasks]
        return ProbedLoad(load, probes, own)

    with frozen_gc(), asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(main())


def _probe_plan(target: Target) -> LoadPlan:
    request = WireRequest(http_request(target, "GET", "/health"), stream=False)
    loop = ClosedLoop(1, think_s=PROBE_INTERVAL_S)
    return LoadPlan(target=target, requests=[request] * _PROBES, loop=loop, warm_connections=1)


def answer_times_ms(exchanges: list[Exchange]) -> list[float]:
    """Of the probes that were answered."""
    return [
        (exchange.end_ns - exchange.written_ns) / 1e6
        for exchange in exchanges
        if exchange.failure is None and exchange.end_ns is not None and exchange.written_ns is not None
    ]


def lag_histogram(url: str) -> dict[float, float] | None:
    """Cumulative counts by upper bound in seconds from a server's `/metrics`; `None` when it has none."""
    try:
        with urlopen(f"{url}/metrics", timeout=5) as response:
            return parse_lag_histogram(response.read().decode())
    except (URLError, OSError, UnicodeDecodeError):
        return None


def parse_lag_histogram(page: str) -> dict[float, float] | None:
    """The loop lag's buckets, `None` when the page has none."""
    return {float(bound): float(count) for bound, count in _LAG_BUCKET.findall(page)} or None


def longest_lag_s(before: dict[float, float] | None, after: dict[float, float] | None) -> float | None:
    """Upper bound of the highest bucket that grew in between; `None` when nothing was sampled."""
    if before is None or after is None:
        return None
    total = 0.0
    longest = None
    for bound in sorted(after):
        grown = after[bound] - before.get(bound, 0.0)
        if grown > total:
            total, longest = grown, bound
    return longest
