"""`kill -9` of an engine under load: whoever has not seen a byte yet is answered by the other one."""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections import Counter
from pathlib import Path

import pytest

from ..serving import eventually, serving, settings_of
from .conftest import StartProcess
from .processes import Process, free_port
from .tempest import ROOT
from .visitor import Visitor
from .visits import ENDPOINTS, KINDS, Visit, encoded
from .wild_engine import marker

CLIENTS = 48
REQUESTS = 960
KILL_AFTER = 240


@pytest.fixture
def engine(processes: list[Process], tmp_path: Path) -> StartProcess:
    """Starts a wild engine as a process."""

    def start() -> Process:
        port = free_port()
        module = f"{__package__}.wild_engine"
        command = [sys.executable, "-m", module, str(port)]
        processes.append(Process(command, port, tmp_path, f"engine-{port}", cwd=ROOT))
        return processes[-1]

    return start


def late(number: int) -> Visit:
    """A request whose answer comes as a whole, after a while."""
    endpoint = ENDPOINTS[number % len(ENDPOINTS)]
    stream = endpoint.streams and number % 2 == 0
    kind, body = encoded(endpoint, "m", stream)
    headers = {"content-type": kind, "x-echo-id": str(number), "x-echo-way": "slow", "x-echo-ms": "30"}
    if stream:
        headers["x-echo-stream"] = "1"
    expects = str(number) if endpoint.counts else marker(number)
    return Visit(number, "POST", endpoint.path, body, tuple(headers.items()), expects=expects)


async def test_no_request_fails_that_had_no_byte(engine: StartProcess) -> None:
    doomed, other = engine(), engine()
    common = {"adapter": "openai_compatible", "models": ["m"], "endpoints": list(KINDS)}
    backend = {"name": "main", "url": [doomed.url, other.url], **common}
    numbers = itertools.count(1)
    endings: Counter[str] = Counter()

    async def client(url: str) -> None:
        visitor = Visitor(url)
        while (number := next(numbers)) <= REQUESTS:
            if number == KILL_AFTER:
                doomed.kill()
            endings[await visitor.pay(late(number))] += 1  # raises for any failure
        visitor.close()

    async with serving(settings_of(backends=[backend], limits={"max_concurrent": 10_000})) as served:
        healthy = served.gateway.router.snapshot
        await eventually(lambda: all(replica.healthy for replica in healthy().replicas))
        await asyncio.gather(*(client(served.url) for _ in range(CLIENTS)))
        await served.until_idle()
        failures = ("upstream_lost", "upstream_connect")
        tried_again = sum(
            served.metric("upstream_failures_total", backend="main", failure=name) for name in failures
        )
    assert endings == {"whole": REQUESTS}
    assert tried_again > 0
