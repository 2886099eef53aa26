"""What the load client itself costs and how exact it is, against the null server: three lanes.

`event`: CPU per SSE event, beside a client in the common style (`peers/aiohttp_streams.py`), in turn.
`schedule`: how late requests leave at a high rate. `streams`: thousands of streams at once on one core.
Every measurement is a process of its own; client and null server have a core each where there are two.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from sluice_bench.client_probe import ProbeLoad, ProbeResult
from sluice_bench.environment import Environment, describe
from sluice_bench.peer_packages import PeerPackage, PeerUnavailable, installed_script
from sluice_bench.processes import (
    ForeignCpu,
    ServerFailed,
    ServerProcess,
    null_server_process,
    pinned,
    raise_file_limit,
    two_cores,
)

AIOHTTP = PeerPackage(name="aiohttp", version="3.14.5", script="python")

EVENTS_PER_S = 50.0
"""Of one stream."""

_PEER = Path(__file__).parent / "peers" / "aiohttp_streams.py"


class ClientLoads(msgspec.Struct, frozen=True, kw_only=True):
    """How much of each lane."""

    repeats: int = 5
    event_streams: int = 400
    event_s: float = 8.0
    schedule_per_s: float = 500.0
    schedule_s: float = 20.0
    streams: int = 2000
    streams_s: float = 10.0


QUICK_LOADS = ClientLoads(
    repeats=1,
    event_streams=10,
    event_s=0.2,
    schedule_per_s=100.0,
    schedule_s=0.2,
    streams=20,
    streams_s=0.3,
)


class ClientRow(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement."""

    lane: str
    client: str
    repeat: int
    requests: int
    planned_events_per_s: float
    result: ProbeResult
    server_cores: float
    """CPU of the null server over the run: near 1 it was the bottleneck."""
    foreign_cores: float

    @property
    def hot_us_per_event(self) -> float:
        """CPU while the load ran."""
        return self.result.hot_cpu_s * 1e6 / max(1, self.result.events)

    @property
    def parse_us_per_event(self) -> float:
        """CPU afterwards."""
        return self.result.parse_cpu_s * 1e6 / max(1, self.result.events)

    @property
    def client_cores(self) -> float:
        """CPU of the client while the load ran."""
        return self.result.hot_cpu_s / max(1e-9, self.result.wall_s)


class ClientCost(msgspec.Struct, frozen=True, kw_only=True):
    """Everything measured."""

    command: str
    measured_at: str
    quick: bool
    environment: Environment
    loads: ClientLoads
    peer: str
    """The client in the common style, with its version, or why there is none."""
    rows: list[ClientRow]


def number_of_steps(loads: ClientLoads) -> int:
    """How often `measure_client` calls `on_step`."""
    return 1 + loads.repeats * 4


def measure_client(
    loads: ClientLoads,
    folder: Path,
    peers_dir: Path,
    about: tuple[str, str, bool],
    on_step: Callable[[str], None],
) -> ClientCost:
    """All lanes; `about` is command, time and whether it is quick. Raises `ServerFailed`."""
    raise_file_limit()
    on_step(f"installing {AIOHTTP.requirement}")
    try:
        peer: Path | str = installed_script(AIOHTTP, peers_dir)
    except PeerUnavailable as error:
        peer = str(error)
    environment = describe()
    lanes = _Lanes(loads, folder, peer, on_step)
    rows = [*lanes.event(), *lanes.schedule(), *lanes.streams()]
    command, measured_at, quick = about
    return ClientCost(
        command=command,
        measured_at=measured_at,
        quick=quick,
        environment=environment,
        loads=loads,
        peer=AIOHTTP.requirement if isinstance(peer, Path) else f"{AIOHTTP.requirement}: {peer}",
        rows=rows,
    )


class _Lanes:
    """Measures; knows no figures."""

    def __init__(
        self, loads: ClientLoads, folder: Path, peer: Path | str, on_step: Callable[[str], None]
    ) -> None:
        self._loads = loads
        self._folder = folder
        self._peer = peer
        self._on_step = on_step
        self._cores = two_cores()

    def event(self) -> list[ClientRow]:
        """Ours and the other in turn, the first one changing."""
        loads, rows = self._loads, []
        chunks = max(1, round(loads.event_s * EVENTS_PER_S))
        with self._server(chunks, stamps=False) as server:
            load = ProbeLoad(url=server.url, requests=loads.event_streams, per_s=loads.event_streams)
            for repeat in range(loads.repeats):
                for client in ("sluice", "aiohttp")[:: 1 if repeat % 2 == 0 else -1]:
                    self._on_step(f"CPU per event, {client}, repeat {repeat + 1}")
                    if client == "sluice" or isinstance(self._peer, Path):
                        rows.append(self._row("event", client, repeat, load, server))
        return rows

    def schedule(self) -> list[ClientRow]:
        """Short streams at a high rate."""
        loads = self._loads
        with self._server(8, stamps=False) as server:
            count = round(loads.schedule_per_s * loads.schedule_s)
            load = ProbeLoad(url=server.url, requests=count, per_s=loads.schedule_per_s)
            return self._repeated("schedule", load, server, f"{loads.schedule_per_s:g} requests/s")

    def streams(self) -> list[ClientRow]:
        """Many streams; they begin within the first seconds and all run in the rest."""
        loads = self._loads
        ramp_s = loads.streams_s / 5
        with self._server(round(loads.streams_s * EVENTS_PER_S), stamps=True) as server:
            load = ProbeLoad(
                url=server.url, requests=loads.streams, per_s=loads.streams / ramp_s, stamped=True
            )
            return self._repeated("streams", load, server, f"{loads.streams} streams")

    def _server(self, chunks: int, *, stamps: bool) -> ServerProcess:
        core = self._cores[0] if self._cores else None
        return null_server_process(
            self._folder, chunks=chunks, pace_ms=1000 / EVENTS_PER_S, stamps=stamps, core=core
        )

    def _repeated(self, lane: str, load: ProbeLoad, server: ServerProcess, what: str) -> list[ClientRow]:
        rows = []
        for repeat in range(self._loads.repeats):
            self._on_step(f"{what}, repeat {repeat + 1}")
            rows.append(self._row(lane, "sluice", repeat, load, server))
        return rows

    def _row(self, lane: str, client: str, repeat: int, load: ProbeLoad, server: ServerProcess) -> ClientRow:
        foreign, server_before = ForeignCpu(os.getpid()), server.cpu_s()
        result = self._measured(client, load)
        return ClientRow(
            lane=lane,
            client=client,
            repeat=repeat,
            requests=load.requests,
            planned_events_per_s=load.requests * EVENTS_PER_S if lane != "schedule" else load.per_s * 11,
            result=result,
            server_cores=(server.cpu_s() - server_before) / result.wall_s,
            foreign_cores=foreign.cores(),
        )

    def _measured(self, client: str, load: ProbeLoad) -> ProbeResult:
        if client == "sluice":
            command = [sys.executable, "-m", "sluice_bench.client_probe", _json(load)]
        else:
            asked = {"url": load.url, "requests": load.requests, "per_s": load.per_s}
            command = [str(self._peer), str(_PEER), msgspec.json.encode(asked).decode()]
        with pinned(self._cores[1] if self._cores else None):
            return _result(command)


def _json(load: ProbeLoad) -> str:
    return msgspec.json.encode(load).decode()


def _result(command: Sequence[str]) -> ProbeResult:
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        last = [line for line in done.stderr.splitlines() if line.strip()][-1:]
        raise ServerFailed(f"a client ended with status {done.returncode}: {''.join(last)}")
    return msgspec.json.decode(done.stdout, type=ProbeResult)
