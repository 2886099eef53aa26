"""What a gateway costs: CPU microseconds per plain request and per relayed SSE event.

The upstream is the null server, so all that a gateway's process tree burns is the gateway's own. Measured is
CPU time, not wall time: it hardly depends on what else the machine does. Nothing is subtracted: the figure
holds accepting, checking the key, routing, relaying, counting and logging; a stream's fixed cost is in its
per-event figure. Repeats go round over the targets in turn, so that a disturbance hits all alike; beside
Sluice run the null server itself (`direct`) and the common FastAPI + httpx proxy, as the yardstick.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal

import msgspec

from sluice_bench.answers import read_answers
from sluice_bench.client import ClosedLoop, LoadPlan, Target, run_blocking
from sluice_bench.metrics import distribution, e2e_s
from sluice_bench.processes import (
    ForeignCpu,
    ServerFailed,
    ServerProcess,
    free_port,
    null_server_process,
    script,
)
from sluice_bench.records import RequestRecord
from sluice_bench.workload import Asking, Shape, chat_requests

Kind = Literal["plain", "stream"]

_SECRET = "sk-bench-0123456789abcdef0123456789abcdef"
_SHAPE = Shape(prompt_words=96, output_tokens=100)
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
    e2e_p50_ms: float | None
    foreign_cores: float
    """Busy cores that were neither ours nor the servers'."""


class _Gateway(msgspec.Struct, frozen=True):
    """A target under measurement."""

    name: str
    server: ServerProcess
    plain_requests: int
    api_key: str | None = None


def gateway_config(upstream: str, port: int) -> bytes:
    """A `sluice.yaml` (JSON is YAML) with one OpenAI-compatible backend and one key."""
    backend = {"name": "null", "adapter": "openai_compatible", "url": upstream, "models": ["null"]}
    key = {"id": "bench", "sha256": hashlib.sha256(_SECRET.encode()).hexdigest()}
    server = {"host": "127.0.0.1", "port": port}
    return msgspec.json.encode({"server": server, "backends": [backend], "keys": [key]})


def measure_overhead(load: OverheadLoad, folder: Path, on_step: Callable[[str], None]) -> list[OverheadRow]:
    """Start everything, measure, stop everything. `folder` takes the config and the servers' logs.

    Raises `ServerFailed` when a server does not start, or answers its warm-up with failures.
    """
    rows: list[OverheadRow] = []
    with _targets(load, folder) as targets:
        for target in targets:
            on_step(f"warming up {target.name}")
            _warm_up(target, load)
        for repeat in range(load.repeats):
            turn = repeat % len(targets)
            for kind in ("plain", "stream"):
                for target in [*targets[turn:], *targets[:turn]]:
                    on_step(f"{target.name}, {kind}, repeat {repeat + 1}")
                    rows.append(_measure(target, kind, repeat, load))
    return rows


def number_of_steps(load: OverheadLoad) -> int:
    """How often `on_step` is called."""
    return 3 + load.repeats * 2 * 3


@contextmanager
def _targets(load: OverheadLoad, folder: Path) -> Iterator[list[_Gateway]]:
    with ExitStack() as stack:
        null = stack.enter_context(null_server_process(folder, load.chunks, load.pace_ms))
        port = free_port()
        config = folder / "sluice.yaml"
        config.write_bytes(gateway_config(null.url, port))
        command = [script("sluice"), "serve", "--config", str(config), "--port", str(port)]
        sluice = stack.enter_context(ServerProcess(command, port, folder / "gateway.log", "/ready"))
        port = free_port()
        command = [sys.executable, "-m", "sluice_bench.peers.fastapi_proxy", null.url, str(port)]
        proxy = stack.enter_context(ServerProcess(command, port, folder / "proxy.log"))
        yield [
            _Gateway("direct", null, load.plain_requests),
            _Gateway("sluice", sluice, load.plain_requests, _SECRET),
            _Gateway("fastapi-httpx", proxy, load.peer_plain_requests),
        ]


def _plan(target: _Gateway, kind: Kind, load: OverheadLoad, share: int = 1) -> LoadPlan:
    address = Target.parse(target.server.url)
    asking = Asking(model="null", stream=kind == "stream", api_key=target.api_key, include_usage=False)
    count = target.plain_requests if kind == "plain" else load.streams
    requests = chat_requests(address, _SHAPE, asking, max(load.connections, count // share), seed=1)
    return LoadPlan(
        target=address,
        requests=requests,
        loop=ClosedLoop(load.connections),
        warm_connections=load.connections,
        hard_stop_s=120,
    )


def _warm_up(target: _Gateway, load: OverheadLoad) -> None:
    kinds: tuple[Kind, ...] = ("plain", "stream")
    for kind in kinds:
        records = read_answers(run_blocking(_plan(target, kind, load, _WARM_UP_SHARE)))
        broken = [record for record in records if record.failure is not None]
        if broken:
            raise ServerFailed(
                f"{target.name}: {len(broken)} of {len(records)} {kind} requests failed while warming up, "
                f"the first with {broken[0].failure}: {broken[0].message}\n{target.server.tail()}"
            )


def _measure(target: _Gateway, kind: Kind, repeat: int, load: OverheadLoad) -> OverheadRow:
    plan = _plan(target, kind, load)
    foreign = ForeignCpu(os.getpid())  # the servers are our children
    server_before, client_before = target.server.cpu_s(), time.process_time()
    started = time.perf_counter()
    exchanges = run_blocking(plan)
    wall_s = time.perf_counter() - started
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
        wall_s=wall_s,
        e2e_p50_ms=latency.p50 * 1000 if latency is not None and latency.p50 is not None else None,
        foreign_cores=foreign_cores,
    )


def _units(kind: Kind, records: Sequence[RequestRecord]) -> int:
    if kind == "plain":
        return sum(record.failure is None for record in records)
    return sum(record.n_events for record in records)
