"""The long storm: many visitors at once, over all endpoints and phases, with the key store away; and what the
gateway holds before and after it.

Engine and visitors share this process, the gateway has its own (`inspected_gateway.py`).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import httpx
import yaml

from sluice_gateway import launch

from .store_link import StoreLink, store_link
from .visitor import PATIENCE_S, Visitor, encode
from .visits import ENDPOINTS, KINDS, Endpoint, calm, draw
from .wild_engine import MODELS, WildEngine

ROOT = Path(__file__).parents[3]
VISITORS = 128
_ADMIN = "sk-storm-admin"
TAKEN = (
    "requests in the pipeline",
    "requests in flight to engines",
    "requests in the queue",
    "leases of the limiter",
    "idempotent answers being made",
)
_CALM_FIRST = 1_000_000_000


@dataclass(frozen=True)
class Plan:
    """How big a storm."""

    visits: int
    warm_up: int
    calm_rounds: int = 3
    """How often each phase of each endpoint is left, one at a time, to see how soon the engine knows."""
    rest_s: float = 7.5
    """Until idle connections to engines (4 s) and attempts to connect to a silent database (5 s) are over."""


@dataclass
class Outcome:
    """What a storm left behind."""

    plan: Plan
    endings: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    warm: dict[str, Any] = field(default_factory=dict)
    cold: dict[str, Any] = field(default_factory=dict)
    still_running: int = 0
    """Requests that the engine works on though nobody waits for them."""
    latency_s: dict[str, list[float]] = field(default_factory=dict)
    """By phase: from the client's leaving to the end of the engine's connection."""
    disappointments: list[str] = field(default_factory=list)
    log: str = ""

    @property
    def left(self) -> int:
        """Visitors that did not stay."""
        return sum(count for ending, count in self.endings.items() if ending.startswith("left"))

    def grown(self) -> dict[str, int]:
        """Python objects by type, of which there are more than after the warm-up."""
        warm, cold = Counter(self.warm["objects"]), Counter(self.cold["objects"])
        return dict((cold - warm).most_common())


class InspectedGateway:
    """The gateway's process."""

    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self._process = process
        self.url = url

    async def holdings(self) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        found: dict[str, Any] = json.loads(await self._line())
        return found

    async def at_rest(self, rest_s: float) -> dict[str, Any]:
        """What it holds once nobody asks for anything and idle connections to engines have expired."""
        deadline = perf_counter() + PATIENCE_S
        while True:
            found = await self.holdings()
            if all(found[name] == 0 for name in TAKEN) or perf_counter() > deadline:
                break
            await asyncio.sleep(0.2)
        await asyncio.sleep(rest_s)
        return await self.holdings()

    async def _line(self) -> bytes:
        assert self._process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            return await self._process.stdout.readline()


@asynccontextmanager
async def inspected_gateway(folder: Path, settings: dict[str, Any]) -> AsyncIterator[InspectedGateway]:
    config, log = folder / "sluice.yaml", folder / "gateway.log"
    config.write_text(yaml.safe_dump(settings))
    module = f"{__package__}.inspected_gateway"
    process = await asyncio.create_subprocess_exec(
        *launch.command(module, str(config), str(log)),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 24,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            url = (await process.stdout.readline()).decode().strip()
        assert url, "the gateway did not start; see above"
        yield InspectedGateway(process, url)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


class Nowhere:
    """An engine that answers probes, and at some point no longer accepts connections: who connects waits."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1)
        self._listener.setblocking(False)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._accepting = asyncio.create_task(self._accept())
        self._fillers: list[socket.socket] = []

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            connection, _ = await loop.sock_accept(self._listener)
            await loop.sock_recv(connection, 65536)
            await loop.sock_sendall(connection, MODELS)
            connection.close()

    def vanish(self) -> None:
        """Fill the backlog."""
        self._accepting.cancel()
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(self._listener.getsockname())
            self._fillers.append(filler)

    async def close(self) -> None:
        self._accepting.cancel()
        await asyncio.gather(self._accepting, return_exceptions=True)
        for sock in (self._listener, *self._fillers):
            sock.close()


@asynccontextmanager
async def nowhere() -> AsyncIterator[Nowhere]:
    engine = Nowhere()
    try:
        yield engine
    finally:
        await engine.close()


def settings_of(
    engine: list[str], nowhere: str, store: str, folder: Path, redis: str | None
) -> dict[str, Any]:
    """Everything that a request can take something from is switched on."""
    common = {"adapter": "openai_compatible", "endpoints": list(KINDS)}
    many = {"requests_per_min": 10**9, "tokens_per_min": 10**12, "concurrent": 10**6, "budget_per_day": 10**6}
    return {
        "backends": [
            {"name": "main", "url": engine, "models": ["m"], "max_in_flight": 256, **common},
            {"name": "narrow", "url": engine[0], "models": ["narrow"], "max_in_flight": 8, **common},
            {"name": "nowhere", "url": nowhere, "models": ["nowhere"], **common},
        ],
        "keys": [{"id": "root", "sha256": hashlib.sha256(_ADMIN.encode()).hexdigest(), "admin": True}],
        "limits": {"max_concurrent": 100_000, "per_key": many, "per_tenant": many, "models": {"m": many}},
        "prices": {"models": {"m": {"input": 1.0, "output": 2.0}}},
        "queue": {"max_waiting": 100_000, "timeout_s": 60.0},
        # What fails here fails as asked, and says nothing about the next request.
        "failover": {"retry_budget": 1.0, "breaker_failures": 1_000_000},
        # One good probe is all that `nowhere` gives.
        "health": {"interval_s": 3600.0, "timeout_s": 20.0},
        "idempotency": {"max_bytes": 100_000},
        "store": {"url": store},
        "ledger": {"journal_folder": str(folder / "journal")},
        "files": {"dir": str(folder / "files")},
        **({"redis": {"url": redis, "timeout_ms": 10_000}} if redis else {}),
    }


class Tempest:
    """Sends visitors."""

    def __init__(self, gateway: InspectedGateway, engine: WildEngine, secret: str, outcome: Outcome) -> None:
        self._gateway = gateway
        self._engine = engine
        self._secret = secret
        self._outcome = outcome

    async def blow(self, numbers: range, *, store_is_down: bool) -> None:
        """All visits of these numbers, so many visitors at once."""
        waiting = iter(numbers)

        async def visitor() -> None:
            one = Visitor(self._gateway.url)
            for number in waiting:
                visit = draw(number, self._secret, store_is_down=store_is_down)
                try:
                    ending = await one.pay(visit)
                except (AssertionError, TimeoutError, ConnectionError) as error:
                    ending = "disappointed"
                    self._outcome.disappointments.append(f"{type(error).__name__} {error} {visit}")
                    one = Visitor(self._gateway.url)
                self._outcome.endings[ending] += 1
            one.close()

        await asyncio.gather(*(visitor() for _ in range(VISITORS)))

    async def leave_calmly(self, rounds: int) -> None:
        """Leave one at a time in the phases that the engine knows of, and note how soon it is told."""
        number = _CALM_FIRST
        for endpoint in ENDPOINTS:
            for phase, way, stream in _calm_phases(endpoint):
                found = self._outcome.latency_s.setdefault(phase, [])
                for _ in range(rounds):
                    number += 1
                    found.append(await self._leave_once(number, endpoint, way, stream))

    async def _leave_once(self, number: int, endpoint: Endpoint, way: str, stream: bool) -> float:
        loop, engine = asyncio.get_running_loop(), self._engine
        begun = engine.begun[number] = loop.create_future()
        gone = engine.gone[number] = loop.create_future()
        visit = calm(number, endpoint, way, stream, self._secret)
        visitor = Visitor(self._gateway.url)
        line = await visitor._ready_line()
        line.transport.write(b"".join(encode(visit)))
        async with asyncio.timeout(PATIENCE_S):
            await begun
            if way == "drip" and stream:
                await line.until(lambda: line.received > 0)
            else:
                await asyncio.sleep(0.005)
            line.leave("RST" if number % 2 else "FIN")
            left_at = perf_counter()
            return await gone - left_at


def _calm_phases(endpoint: Endpoint) -> list[tuple[str, str, bool]]:
    phases = [("plain, before the first byte", "hang", False), ("plain, amid the body", "half", False)]
    if endpoint.streams:
        phases += [("stream, before the first byte", "hang", True), ("stream, amid the answer", "drip", True)]
    return phases


async def create_key(url: str) -> str:
    """A key that is only in the store."""
    async with httpx.AsyncClient(base_url=url, verify=False, timeout=PATIENCE_S) as http:
        headers = {"authorization": f"Bearer {_ADMIN}"}
        answer = await http.post("/admin/v1/keys", json={"id": "visitor"}, headers=headers)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["secret"])


@asynccontextmanager
async def wild_engine() -> AsyncIterator[tuple[WildEngine, list[str]]]:
    engine = WildEngine()
    try:
        yield engine, [await engine.start(), await engine.start()]
    finally:
        engine.close()


async def until_noticed(url: str) -> None:
    """Return once the gateway knows that its store is away: it cannot say then that a key is wrong."""
    async with httpx.AsyncClient(base_url=url, verify=False) as http:
        for _ in range(int(PATIENCE_S / 0.05)):
            if (await http.get("/v1/models", headers={"x-api-key": "sk-unknown"})).status_code == 503:
                return
            await asyncio.sleep(0.05)
    raise AssertionError("the gateway does not notice that its store is away")


async def tempest(
    plan: Plan, folder: Path, store_port: int, store_url: str, redis: str | None = None
) -> Outcome:
    """Blow. `store_url` has `{port}` where the database's port belongs."""
    outcome = Outcome(plan)
    async with wild_engine() as (engine, urls), nowhere() as far, store_link(store_port) as (link, port):
        settings = settings_of(urls, far.url, store_url.format(port=port), folder, redis)
        async with inspected_gateway(folder, settings) as gateway:
            storm = Tempest(gateway, engine, await create_key(gateway.url), outcome)
            far.vanish()
            await _blow_in_turns(plan, storm, gateway, link, outcome)
            outcome.still_running = engine.running
    outcome.log = (folder / "gateway.log").read_text()
    return outcome


async def _blow_in_turns(
    plan: Plan, storm: Tempest, gateway: InspectedGateway, link: StoreLink, outcome: Outcome
) -> None:
    """The store is cut off before the warm-up has ended, and dead from half-way on."""
    await storm.blow(range(200), store_is_down=False)
    link.turn("cut")
    await until_noticed(gateway.url)
    await storm.blow(range(200, plan.warm_up), store_is_down=True)
    outcome.warm = await gateway.at_rest(plan.rest_s)
    begun, half, end = perf_counter(), plan.warm_up + plan.visits // 2, plan.warm_up + plan.visits
    await storm.blow(range(plan.warm_up, half), store_is_down=True)
    link.turn("dead")
    await storm.blow(range(half, end), store_is_down=True)
    outcome.seconds = perf_counter() - begun
    await storm.leave_calmly(plan.calm_rounds)
    outcome.cold = await gateway.at_rest(plan.rest_s)
