"""What shared limits cost a request, and what an outage of Redis costs it.

A gateway with every kind of limit set, in front of the null server, is asked in a closed loop through four
phases: Redis is well; Redis has just been frozen (SIGSTOP), so that requests wait for it until the breaker
opens; it is still frozen and the breaker is open; it is back. The figure is a phase's latency less the
first one's. The same gateway without Redis, limits in memory, runs beside it in every round.

Needs `redis-server` on the PATH. Reports; judges nothing.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal

import msgspec

from sluice_bench.answers import read_answers
from sluice_bench.load_run import run_blocking
from sluice_bench.loops import ClosedLoop, LoadPlan
from sluice_bench.metrics import distribution, e2e_s
from sluice_bench.processes import (
    ForeignCpu,
    ServerFailed,
    ServerProcess,
    free_port,
    null_server_process,
    script,
)
from sluice_bench.stats.percentile import percentile_of
from sluice_bench.target import Target
from sluice_bench.workload import Asking, Shape, chat_requests

Phase = Literal["memory", "shared", "freezing", "frozen", "back"]
MEANINGS: dict[Phase, str] = {
    "memory": "limits in memory, no Redis",
    "shared": "limits in Redis",
    "freezing": "the first requests after SIGSTOP",
    "frozen": "breaker open",
    "back": "after SIGCONT",
}

_SECRET = "sk-bench-0123456789abcdef0123456789abcdef"
_SHAPE = Shape(prompt_words=96, output_tokens=100)
_PLENTY = 100_000_000
_PATIENCE_S = 20.0


class LimitsLoad(msgspec.Struct, frozen=True, kw_only=True):
    """How much is sent."""

    connections: int = 16
    requests: int = 4000
    """In each phase; only `connections` of them while Redis is freezing."""
    rounds: int = 3


QUICK_LIMITS = LimitsLoad(connections=4, requests=200, rounds=1)


class LimitsRow(msgspec.Struct, frozen=True, kw_only=True):
    """One phase of one round. Milliseconds from sending to the last byte."""

    phase: Phase
    round: int
    requests: int
    failures: int
    p50_ms: float | None
    p99_ms: float | None
    max_ms: float | None
    gateway_cpu_us_per_request: float
    foreign_cores: float


class _Redis:
    """A server without persistence, as a child."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        command += ["--dir", str(folder), "--logfile", str(folder / "redis.log")]
        try:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        except FileNotFoundError as error:
            raise ServerFailed("redis-server is not installed") from error

    def signal(self, number: signal.Signals) -> None:
        """Freeze it, or let it go on."""
        self._process.send_signal(number)

    def stop(self) -> None:
        """End it, frozen or not."""
        self._process.kill()
        self._process.wait()


def measure_limits(load: LimitsLoad, folder: Path, on_step: Callable[[str], None]) -> list[LimitsRow]:
    """Start everything, measure, stop everything. Raises `ServerFailed`."""
    rows: list[LimitsRow] = []
    with _servers(folder) as (redis, memory, shared):
        for server in (memory, shared):
            _measure(server, "memory", 0, load, load.requests // 4)  # warms up
        for number in range(load.rounds):
            on_step(f"round {number + 1}, memory")
            rows.append(_measure(memory, "memory", number, load, load.requests))
            on_step(f"round {number + 1}, shared")
            rows.append(_measure(shared, "shared", number, load, load.requests))
            redis.signal(signal.SIGSTOP)
            try:
                on_step(f"round {number + 1}, freezing")
                rows.append(_measure(shared, "freezing", number, load, load.connections))
                on_step(f"round {number + 1}, frozen")
                rows.append(_measure(shared, "frozen", number, load, load.requests))
            finally:
                redis.signal(signal.SIGCONT)
            _wait_until_shared(shared)
            on_step(f"round {number + 1}, back")
            rows.append(_measure(shared, "back", number, load, load.requests))
    return rows


def number_of_steps(load: LimitsLoad) -> int:
    """How often `on_step` is called."""
    return 5 * load.rounds


def gateway_config(upstream: str, port: int, redis_port: int | None) -> bytes:
    """A `sluice.yaml` (JSON is YAML) with every kind of limit, none of which is ever reached."""
    bounds = {"requests_per_min": _PLENTY, "tokens_per_min": _PLENTY, "concurrent": 10_000}
    backend = {"name": "null", "adapter": "openai_compatible", "url": upstream, "models": ["null"]}
    key = {"id": "bench", "sha256": hashlib.sha256(_SECRET.encode()).hexdigest()}
    limits = {"per_key": bounds, "per_tenant": bounds, "models": {"null": bounds}}
    values: dict[str, object] = {
        "server": {"host": "127.0.0.1", "port": port},
        "backends": [{**backend, "max_in_flight": 10_000}],
        "keys": [key],
        "limits": limits,
    }
    if redis_port is not None:
        values["redis"] = {"url": f"redis://127.0.0.1:{redis_port}/0"}
    return msgspec.json.encode(values)


@contextmanager
def _servers(folder: Path) -> Iterator[tuple[_Redis, ServerProcess, ServerProcess]]:
    with ExitStack() as stack:
        redis = _Redis(folder)
        stack.callback(redis.stop)
        null = stack.enter_context(null_server_process(folder, 1, 0.0))
        memory = stack.enter_context(_gateway(folder, "memory", null.url, None))
        shared = stack.enter_context(_gateway(folder, "shared", null.url, redis.port))
        _wait_until_shared(shared)
        yield redis, memory, shared


def _gateway(folder: Path, name: str, upstream: str, redis_port: int | None) -> ServerProcess:
    port, own = free_port(), folder / name
    own.mkdir()
    config = own / "sluice.yaml"
    config.write_bytes(gateway_config(upstream, port, redis_port))
    command = [script("sluice"), "serve", "--config", str(config), "--port", str(port)]
    return ServerProcess(command, port, own / "gateway.log", "/ready")


def _wait_until_shared(server: ServerProcess) -> None:
    """Return once limits are decided in Redis, which an answer shows by not naming another mode."""
    give_up = time.monotonic() + _PATIENCE_S
    while time.monotonic() < give_up:
        answer = b"".join(data for _, data in run_blocking(_plan(server, 1, 1))[0].reads)
        if answer.startswith(b"HTTP/1.1 200") and b"x-sluice-limits" not in answer.lower():
            return
        time.sleep(0.05)
    raise ServerFailed(f"the gateway did not come back to Redis:\n{server.tail()}")


def _plan(server: ServerProcess, connections: int, count: int) -> LoadPlan:
    address = Target.parse(server.url)
    asking = Asking(model="null", stream=False, api_key=_SECRET, include_usage=False)
    return LoadPlan(
        target=address,
        requests=chat_requests(address, _SHAPE, asking, count, seed=1),
        loop=ClosedLoop(connections),
        warm_connections=connections,
        hard_stop_s=120,
    )


def _measure(server: ServerProcess, phase: Phase, number: int, load: LimitsLoad, count: int) -> LimitsRow:
    plan = _plan(server, load.connections, count)
    foreign, cpu_before = ForeignCpu(os.getpid()), server.cpu_s()
    records = read_answers(run_blocking(plan))
    cpu_s = server.cpu_s() - cpu_before
    latency = distribution(e2e_s(record) for record in records if record.failure is None)
    return LimitsRow(
        phase=phase,
        round=number,
        requests=len(records),
        failures=sum(record.failure is not None for record in records),
        p50_ms=_ms(latency.p50 if latency else None),
        p99_ms=_ms(latency.p99 if latency else None),
        max_ms=_ms(latency.high if latency else None),
        gateway_cpu_us_per_request=cpu_s * 1e6 / max(1, len(records)),
        foreign_cores=foreign.cores(),
    )


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000


def table(rows: list[LimitsRow]) -> str:
    """Medians over the rounds, as Markdown."""
    lines = [
        "| phase | requests | failures | p50 ms | p99 ms | slowest ms | gateway CPU-µs a request |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for phase, meaning in MEANINGS.items():
        mine = [row for row in rows if row.phase == phase]
        cells = [
            meaning,
            str(sum(row.requests for row in mine)),
            str(sum(row.failures for row in mine)),
            *(_median([getattr(row, name) for row in mine], 2) for name in ("p50_ms", "p99_ms", "max_ms")),
            _median([row.gateway_cpu_us_per_request for row in mine], 0),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _median(values: list[float | None], digits: int) -> str:
    known = [value for value in values if value is not None]
    return f"{percentile_of(known, 0.5):.{digits}f}" if known else "–"
