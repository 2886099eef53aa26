"""What a gateway costs: CPU microseconds per plain request and per relayed SSE event.

The upstream is the null server, so all that a gateway's process tree burns is the gateway's own. Measured is
CPU time, not wall time: it hardly depends on what else the machine does. Nothing is subtracted: the figure
holds accepting, checking the key, routing, relaying, counting and logging; a stream's fixed cost is in its
per-event figure. Repeats go round over the targets in turn, so that a disturbance hits all alike; beside
Sluice run the null server itself (`direct`) and the common FastAPI + httpx proxy, as the yardstick.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Literal

import msgspec

from sluice_bench.answers import read_answers
from sluice_bench.connection import Exchange
from sluice_bench.gateway_targets import (
    DIRECT,
    FASTAPI_HTTPX,
    SLUICE,
    FleetPlan,
    GatewayTarget,
    running_fleet,
)
from sluice_bench.load_run import run_blocking
from sluice_bench.loops import ClosedLoop, LoadPlan
from sluice_bench.metrics import distribution, e2e_s
from sluice_bench.processes import ForeignCpu, ServerFailed
from sluice_bench.records import RequestRecord
from sluice_bench.target import Target, WireRequest
from sluice_bench.workload import Asking, Shape, chat_requests

Kind = Literal["plain", "stream"]

_TARGETS = (DIRECT, SLUICE, FASTAPI_HTTPX)
_SHAPE = Shape(prompt_words=96, output_tokens=100)
KINDS: tuple[Kind, ...] = ("plain", "stream")
DISTINCT_PROMPTS = 512
"""Requests come round again after so many; nothing behind a gateway here looks at a prompt."""

_WARM_UP_SHARE = 10
"""A tenth of a measurement is sent first and thrown away."""


class OverheadLoad(msgspec.Struct, frozen=True, kw_only=True):
    """How much is sent."""

    connections: int = 16
    plain_requests: int = 8000
    peer_plain_requests: int = 1600
    """The proxy is slower; fewer requests are enough for the same CPU time."""
    streams: int = 160
    chunks: int = 100
    pace_ms: float = 2.0
    """Between two chunks of a stream: each travels alone, as an engine's tokens do."""
    repeats: int = 5


QUICK_LOAD = OverheadLoad(
    connections=4, plain_requests=80, peer_plain_requests=40, streams=8, chunks=20, repeats=2
)
"""For trying the machinery; its figures mean nothing."""


class OverheadRow(msgspec.Struct, frozen=True, kw_only=True):
    """One repeat on one target."""

    target: str
    kind: Kind
    repeat: int
    requests: int
    failures: int
    units: int
    """Requests (`plain`), or SSE events that reached the client (`stream`)."""
    reads: int
    """Reads by the client. Far fewer reads than events: the target joined them."""
    server_cpu_us_per_unit: float
    client_cpu_us_per_unit: float
    server_resident_mib: float
    """Of the server's tree, after the repeat."""
    wall_s: float
    """From the first request sent to the last answer's end."""
    e2e_p50_ms: float | None
    foreign_cores: float
    """Busy cores that were neither ours nor the servers'."""

    @property
    def server_cores(self) -> float:
        """How many cores the server kept busy on average."""
        return self.server_cpu_us_per_unit * self.units / 1e6 / max(1e-9, self.wall_s)

    @property
    def units_per_s(self) -> float:
        """Throughput by the clock."""
        return self.units / max(1e-9, self.wall_s)

    @property
    def units_per_cpu_s(self) -> float:
        """Throughput by the server's CPU time."""
        return 1e6 / self.server_cpu_us_per_unit if self.server_cpu_us_per_unit else 0.0


def measure_overhead(load: OverheadLoad, folder: Path, on_step: Callable[[str], None]) -> list[OverheadRow]:
    """Start everything, measure, stop everything. `folder` takes the config and the servers' logs.

    Raises `ServerFailed` when a server does not start, or answers its warm-up with failures.
    """
    rows: list[OverheadRow] = []
    plan = FleetPlan(targets=_TARGETS, chunks=load.chunks, pace_ms=load.pace_ms)
    with running_fleet(plan, folder, {}, lambda name: None) as fleet:
        for missing in fleet.missing:
            raise ServerFailed(f"{missing.target}: {missing.reason}")
        for target in fleet.targets:
            on_step(f"warming up {target.name}")
            _warm_up(target, load)
        for repeat in range(load.repeats):
            for kind in KINDS:
                for target in in_turn(fleet.targets, repeat):
                    on_step(f"{target.name}, {kind}, repeat {repeat + 1}")
                    rows.append(measure_load(target, kind, repeat, _plan(target, kind, load)))
    return rows


def number_of_steps(load: OverheadLoad) -> int:
    """How often `on_step` is called."""
    return len(_TARGETS) * (1 + load.repeats * len(KINDS))


def in_turn(targets: Sequence[GatewayTarget], repeat: int) -> list[GatewayTarget]:
    """The same targets, a different one first each time."""
    turn = repeat % len(targets) if targets else 0
    return [*targets[turn:], *targets[:turn]]


def load_plan(
    target: GatewayTarget,
    kind: Kind,
    connections: int,
    count: int,
    shape: Shape = _SHAPE,
    distinct: int = DISTINCT_PROMPTS,
) -> LoadPlan:
    """`count` requests in a closed loop, at least one per connection, over warm connections."""
    address = Target.parse(target.server.url)
    asking = Asking(model="null", stream=kind == "stream", api_key=target.api_key, include_usage=False)
    pool = chat_requests(address, shape, asking, min(count, distinct), seed=1)
    requests: list[WireRequest] = list(islice(cycle(pool), max(connections, count)))
    return LoadPlan(
        target=address,
        requests=requests,
        loop=ClosedLoop(connections),
        warm_connections=connections,
        hard_stop_s=120,
    )


def _plan(target: GatewayTarget, kind: Kind, load: OverheadLoad, share: int = 1) -> LoadPlan:
    cheap = target.name != FASTAPI_HTTPX
    plain_requests = load.plain_requests if cheap else load.peer_plain_requests
    count = plain_requests if kind == "plain" else load.streams
    return load_plan(target, kind, load.connections, max(load.connections, count // share))


def _warm_up(target: GatewayTarget, load: OverheadLoad) -> None:
    for kind in KINDS:
        require_answers(target, kind, run_blocking(_plan(target, kind, load, _WARM_UP_SHARE)))


def require_answers(target: GatewayTarget, kind: str, exchanges: Sequence[Exchange]) -> None:
    """Raises `ServerFailed` when one of the exchanges went wrong."""
    records = read_answers(exchanges)
    broken = [record for record in records if record.failure is not None]
    if broken:
        raise ServerFailed(
            f"{target.name}: {len(broken)} of {len(records)} {kind} requests failed while warming up, "
            f"the first with {broken[0].failure}: {broken[0].message}\n{target.server.tail()}"
        )


def measure_load(target: GatewayTarget, kind: Kind, repeat: int, plan: LoadPlan) -> OverheadRow:
    """Carry out `plan` and read the clocks around it."""
    foreign = ForeignCpu(os.getpid())  # the servers are our children
    server_before, client_before = target.server.cpu_s(), time.process_time()
    exchanges = run_blocking(plan)
    client_cpu_s = time.process_time() - client_before
    server_cpu_s = target.server.cpu_s() - server_before
    foreign_cores = foreign.cores()
    records = read_answers(exchanges)
    units = _units(kind, records)
    latency = distribution(e2e_s(record) for record in records if record.failure is None)
    return OverheadRow(
        target=target.name,
        kind=kind,
        repeat=repeat,
        requests=len(records),
        failures=sum(record.failure is not None for record in records),
        units=units,
        reads=sum(record.n_reads for record in records),
        server_cpu_us_per_unit=server_cpu_s * 1e6 / max(1, units),
        client_cpu_us_per_unit=client_cpu_s * 1e6 / max(1, units),
        server_resident_mib=target.server.resident_bytes() / 2**20,
        wall_s=span_s(exchanges),
        e2e_p50_ms=latency.p50 * 1000 if latency is not None and latency.p50 is not None else None,
        foreign_cores=foreign_cores,
    )


def span_s(exchanges: Sequence[Exchange]) -> float:
    """From the first request sent to the last answer's end."""
    sent = [exchange.dispatched_ns for exchange in exchanges if exchange.dispatched_ns is not None]
    ended = [exchange.end_ns for exchange in exchanges if exchange.end_ns is not None]
    return (max(ended) - min(sent)) / 1e9 if sent and ended else 0.0


def _units(kind: Kind, records: Sequence[RequestRecord]) -> int:
    if kind == "plain":
        return sum(record.failure is None for record in records)
    return sum(record.n_events for record in records)
