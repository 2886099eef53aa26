"""Asks the server for its own load once a second while a run lasts, on the load client's event loop.

Pages are read after the run, like every other answer. A page that does not come is a sample that is missing,
never a failure of the run.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

from sluice_bench import arrivals
from sluice_bench.connection import Exchange
from sluice_bench.engine_load import LoadSample, load_sample
from sluice_bench.http_wire import HttpWireError, parse_response
from sluice_bench.load_run import LoadRun
from sluice_bench.loops import LoadPlan, OpenLoop
from sluice_bench.target import Target, WireRequest, http_request

SAMPLES_PER_S = 1.0

_LONGEST_S = 24 * 3600.0


@asynccontextmanager
async def sampling(server: Target | None, hard_stop_s: float) -> AsyncIterator[list[Exchange]]:
    """Asks `server` while the block runs; the list holds its answers once the block is over."""
    pages: list[Exchange] = []
    if server is None:
        yield pages
        return
    run = LoadRun(_plan(server, hard_stop_s))
    task = asyncio.create_task(run.run())
    try:
        yield pages
    finally:
        run.stop()
        with suppress(OSError):
            pages.extend(await task)


def _plan(server: Target, hard_stop_s: float) -> LoadPlan:
    count = round(min(hard_stop_s, _LONGEST_S) * SAMPLES_PER_S) + 1
    request = WireRequest(http_request(server, "GET", "/metrics"), stream=False)
    return LoadPlan(
        target=server,
        requests=[request] * count,
        loop=OpenLoop(arrivals.constant(SAMPLES_PER_S, count)),
        warm_connections=1,
    )


def read_samples(pages: Sequence[Exchange]) -> tuple[LoadSample, ...]:
    """Of the pages that came whole and that an engine wrote."""
    return tuple(sample for page in pages if (sample := _read(page)) is not None)


def _read(page: Exchange) -> LoadSample | None:
    try:
        response = parse_response(page.reads, closed=page.closed)
    except HttpWireError:
        return None
    if response is None or not response.complete or response.head.status != 200:
        return None
    return load_sample(response.body.data.decode("utf-8", "replace"), page.reads[-1][0])
