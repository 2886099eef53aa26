"""Is this run's client good enough to be believed? Asked in every run, of the client in its own run.

While the load runs, the same event loop also sends a few requests a second to a null server in another
process. What those take is an upper bound on what client, loopback and scheduler add to any latency here;
how late requests were dispatched is the other half. Nothing is subtracted. A run in which either is more
than `LIMIT_SHARE` of the p99 latency that it reports is void: its figures say more of the client than of
the server.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress

import msgspec

from sluice_bench import arrivals
from sluice_bench.answers import read_answers
from sluice_bench.connection import Exchange
from sluice_bench.load_run import LoadRun, frozen_gc, new_event_loop
from sluice_bench.loops import LoadPlan, OpenLoop
from sluice_bench.metrics import dispatch_lag_s, e2e_s, ttft_service_s, ttft_user_s
from sluice_bench.records import RequestRecord
from sluice_bench.stats.percentile import percentile_of
from sluice_bench.target import Target
from sluice_bench.workload import Asking, Shape, chat_requests

LIMIT_SHARE = 0.02
"""Of the p99 of user TTFT (plain answers: of E2E)."""

PROBES_PER_S = 20.0

MIN_PROBES = 20
"""After a short run probing goes on until so many were answered, at most `_PATIENCE_S` longer."""

_PATIENCE_S = 5.0

_PROBE_SHAPE = Shape(prompt_words=12, output_tokens=1)


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """The client's own error in one run, milliseconds. A p99 of few observations is their maximum."""

    probes: int
    null_p50_ms: float | None
    null_p99_ms: float | None
    """Of the null server's TTFT, client and loopback included; `None` when no probe was answered."""
    dispatch_lag_p99_ms: float
    reference_p99_ms: float | None
    """The run's own p99 that the error is held against; `None` when nothing completed."""
    limit_share: float = LIMIT_SHARE
    shards: tuple[Calibration, ...] = ()
    """Of each client process, where there were several; the figures above are of all of them together."""

    @property
    def error_ms(self) -> float:
        """The larger of the two bounds; infinite when no probe was answered."""
        return max(math.inf if self.null_p99_ms is None else self.null_p99_ms, self.dispatch_lag_p99_ms)

    @property
    def void(self) -> bool:
        """True when the error is too large a share of what was measured, or nothing was measured, in the
        run or in the part of one of its processes."""
        if self.reference_p99_ms is None or self.error_ms > self.limit_share * self.reference_p99_ms:
            return True
        return any(shard.void for shard in self.shards)


class CalibratedRun(msgspec.Struct, frozen=True):
    """Records of a run, and what its client was worth."""

    records: list[RequestRecord]
    calibration: Calibration


def run_calibrated(
    plan: LoadPlan, null_server: Target, on_progress: Callable[[int], None] | None = None
) -> CalibratedRun:
    """Carry out `plan` with probes to `null_server` beside it. Raises `OSError`: a server is not there."""
    with frozen_gc(), asyncio.Runner(loop_factory=new_event_loop) as runner:
        exchanges, probes = runner.run(_run_both(plan, null_server, on_progress))
    records = read_answers(exchanges)
    return CalibratedRun(records, calibrate(records, read_answers(probes)))


async def _run_both(
    plan: LoadPlan, null_server: Target, on_progress: Callable[[int], None] | None
) -> tuple[list[Exchange], list[Exchange]]:
    async with probing(null_server, plan.hard_stop_s, MIN_PROBES) as probes:
        exchanges = await LoadRun(plan, on_progress=on_progress).run()
    return exchanges, probes


@asynccontextmanager
async def probing(null_server: Target, hard_stop_s: float, enough: int) -> AsyncIterator[list[Exchange]]:
    """Asks the null server while the block runs, and a little longer where that was not `enough` probes.

    The list holds the probes once the block is over. Raises `OSError` then when the null server is not there.
    """
    answered = asyncio.Event()
    run = LoadRun(
        _probe_plan(null_server, hard_stop_s),
        on_progress=lambda done: answered.set() if done >= enough else None,
    )
    task, probes = asyncio.create_task(run.run()), list[Exchange]()
    try:
        yield probes
        with suppress(TimeoutError):
            await asyncio.wait_for(answered.wait(), 0 if task.done() else _PATIENCE_S)
    finally:
        run.stop_sending()  # more are planned than a run has time for
        run.stop()
        probes.extend(await task)


def _probe_plan(null_server: Target, hard_stop_s: float) -> LoadPlan:
    count = round(min(hard_stop_s, 3600) * PROBES_PER_S) + 1
    requests = chat_requests(null_server, _PROBE_SHAPE, Asking(model="null"), 1, seed=0) * count
    loop = OpenLoop(arrivals.constant(PROBES_PER_S, count))
    return LoadPlan(target=null_server, requests=requests, loop=loop, warm_connections=1)


def calibrate(records: Sequence[RequestRecord], probes: Sequence[RequestRecord]) -> Calibration:
    """Compare a run with its probes; warm-up requests, which no figure covers, left out."""
    records = [record for record in records if record.phase == "measured"]
    answered = [value for probe in probes if (value := ttft_service_s(probe)) is not None]
    lags = [value for record in records if (value := dispatch_lag_s(record)) is not None]
    reference = [value for record in records if (value := _reference_s(record)) is not None]
    return Calibration(
        probes=len(answered),
        null_p50_ms=_percentile_ms(answered, 0.5),
        null_p99_ms=_percentile_ms(answered, 0.99),
        dispatch_lag_p99_ms=_percentile_ms(lags, 0.99) or 0.0,
        reference_p99_ms=_percentile_ms(reference, 0.99),
    )


def calibrate_shards(
    shards: Sequence[tuple[Sequence[RequestRecord], Sequence[RequestRecord]]],
) -> Calibration:
    """Of several client processes, each (records, probes): all observations together, and of each its own.

    Percentiles of parts say nothing of the whole's, so none is averaged.
    """
    records = [record for part, _ in shards for record in part]
    probes = [probe for _, part in shards for probe in part]
    each = tuple(calibrate(part, its_probes) for part, its_probes in shards)
    return msgspec.structs.replace(calibrate(records, probes), shards=each if len(each) > 1 else ())


def _reference_s(record: RequestRecord) -> float | None:
    if record.failure is not None:
        return None
    return ttft_user_s(record) if record.stream else e2e_s(record)


def _percentile_ms(values: Sequence[float], share: float) -> float | None:
    return percentile_of(values, share) * 1000 if values else None
