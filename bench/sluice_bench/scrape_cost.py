"""What it costs a gateway to watch a fleet: CPU while nobody asks it anything.

A gateway with `replicas` idle engines behind it, whose metrics pages have the size of a real one. Two
settings alternate: it reads the load `rate_hz` times a second of each, or hardly ever; health is probed once
a second in both. The first, whole, is what watching costs; the difference of the two, over the pages read, is
one page: request, answer, parsing, and the router told of it. Beside that stands what parsing alone costs,
measured in a Python of its own over the same page. CPU is user + system of the gateway's process tree.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Literal
from urllib.request import urlopen

import msgspec

from sluice_bench.idle_engines import metrics_page
from sluice_bench.processes import ForeignCpu, ServerFailed, ServerProcess, free_port, script

Watching = Literal["load", "health"]
"""What the gateway does: reads loads, and probes health; or only the latter."""

_HARDLY_EVER_S = 86_400.0
_COMPILED = "serves from compiled modules"
_PARSE = """
import json, sys, timeit
from sluice_engines.vllm import VllmAdapter
page, adapter = sys.stdin.buffer.read(), VllmAdapter()
pages = {"/metrics": page}
rounds = int(sys.argv[1])
runs = timeit.repeat(lambda: adapter.parse_load(pages), number=rounds, repeat=9)
from prometheus_client.parser import text_string_to_metric_families
text = page.decode()
slow = timeit.repeat(lambda: list(text_string_to_metric_families(text)), number=1, repeat=5)
parse_us, prometheus_us = [run / rounds * 1e6 for run in runs], [run * 1e6 for run in slow]
print(json.dumps({"parse_us": parse_us, "prometheus_us": prometheus_us}))
"""


class ScrapeLoad(msgspec.Struct, frozen=True, kw_only=True):
    """How much is watched, and for how long."""

    replicas: int = 100
    rate_hz: float = 5.0
    settle_s: float = 4.0
    """After the gateway is ready: connections are made, caches are warm."""
    window_s: float = 20.0
    repeats: int = 3
    parse_rounds: int = 300


QUICK_SCRAPE = ScrapeLoad(replicas=5, settle_s=0.5, window_s=0.5, repeats=1, parse_rounds=20)
"""For trying the machinery; its figures mean nothing."""


class ScrapeRow(msgspec.Struct, frozen=True, kw_only=True):
    """One window of one setting."""

    watching: Watching
    repeat: int
    wall_s: float
    cpu_s: float
    pages: int
    """Metrics pages read in the window."""
    probes: int
    """Health pages read in the window."""
    foreign_cores: float
    """Busy cores that were neither ours nor the servers'."""

    @property
    def cores(self) -> float:
        """How much of a core the gateway kept busy."""
        return self.cpu_s / self.wall_s


class ScrapeCost(msgspec.Struct, frozen=True, kw_only=True):
    """All that was measured."""

    load: ScrapeLoad
    page_bytes: int
    rows: list[ScrapeRow]
    parse_us: list[float]
    """Of one page, each the mean of many."""
    prometheus_us: list[float]
    """The same by `prometheus_client`'s parser."""
    compiled: bool
    """Whether the gateway's request path ran as machine code."""

    def cores(self, watching: Watching) -> list[float]:
        """Of every window of a setting."""
        return [row.cores for row in self.rows if row.watching == watching]

    def page_us(self) -> list[float]:
        """What one page costs, of each pair of windows."""
        costs = []
        for loaded in (row for row in self.rows if row.watching == "load"):
            bare = next(r for r in self.rows if r.watching == "health" and r.repeat == loaded.repeat)
            costs.append((loaded.cores - bare.cores) * loaded.wall_s / max(1, loaded.pages) * 1e6)
        return costs


def measure_scrape_cost(load: ScrapeLoad, folder: Path, on_step: Callable[[str], None]) -> ScrapeCost:
    """Start everything, measure, stop everything. Raises `ServerFailed`."""
    rows = []
    compiled = True
    with ExitStack() as stack:
        port = free_port()
        command = [sys.executable, "-m", "sluice_bench.idle_engines", str(port), str(load.replicas)]
        engines = stack.enter_context(ServerProcess(command, port, folder / "engines.log"))
        urls = json.loads(_get(f"{engines.url}/targets"))
        for repeat in range(load.repeats):
            for watching in ("load", "health"):
                on_step(f"{watching}, {repeat + 1} of {load.repeats}")
                interval_s = 1 / load.rate_hz if watching == "load" else _HARDLY_EVER_S
                with _gateway(urls, interval_s, folder) as gateway:
                    compiled = compiled and gateway.has_said(_COMPILED)
                    rows.append(_window(load, watching, repeat, gateway, engines))
    on_step("parsing")
    page = metrics_page().replace("@", "000042").encode()
    parsed = _parsing(page, load.parse_rounds)
    return ScrapeCost(
        load=load,
        page_bytes=len(page),
        rows=rows,
        parse_us=parsed["parse_us"],
        prometheus_us=parsed["prometheus_us"],
        compiled=compiled,
    )


def number_of_steps(load: ScrapeLoad) -> int:
    """How often `on_step` is called."""
    return 2 * load.repeats + 1


def _gateway(urls: list[str], load_interval_s: float, folder: Path) -> ServerProcess:
    port = free_port()
    config = folder / f"sluice-{port}.yaml"
    settings = {
        "server": {"port": port},
        "backends": [{"name": "vllm", "adapter": "vllm", "url": urls}],
        "health": {"interval_s": 1.0, "load_interval_s": load_interval_s},
        "store": {"url": "sqlite:///:memory:"},
        "ledger": {"enabled": False},
        "files": {"dir": f"{folder}/files"},
    }
    config.write_bytes(msgspec.json.encode(settings))
    command = [script("sluice"), "serve", "--config", str(config)]
    return ServerProcess(command, port, folder / f"sluice-{port}.log", ready_path="/ready")


def _window(
    load: ScrapeLoad, watching: Watching, repeat: int, gateway: ServerProcess, engines: ServerProcess
) -> ScrapeRow:
    time.sleep(load.settle_s)
    foreign = ForeignCpu(os.getpid())
    before, cpu_s, began_s = _looks(engines), gateway.cpu_s(), time.monotonic()
    time.sleep(load.window_s)
    wall_s, cpu_s = time.monotonic() - began_s, gateway.cpu_s() - cpu_s
    after = _looks(engines)
    return ScrapeRow(
        watching=watching,
        repeat=repeat,
        wall_s=wall_s,
        cpu_s=cpu_s,
        pages=after.get("/metrics", 0) - before.get("/metrics", 0),
        probes=after.get("/health", 0) - before.get("/health", 0),
        foreign_cores=foreign.cores(),
    )


def _looks(engines: ServerProcess) -> dict[str, int]:
    looks: dict[str, int] = json.loads(_get(f"{engines.url}/looks"))
    return looks


def _get(url: str) -> bytes:
    with urlopen(url, timeout=10) as answer:
        body: bytes = answer.read()
        return body


def _parsing(page: bytes, rounds: int) -> dict[str, list[float]]:
    done = subprocess.run(
        [sys.executable, "-c", _PARSE, str(rounds)], input=page, capture_output=True, check=False
    )
    if done.returncode:
        raise ServerFailed(f"the parser did not run: {done.stderr.decode(errors='replace')[-400:]}")
    found: dict[str, list[float]] = json.loads(done.stdout)
    return found
