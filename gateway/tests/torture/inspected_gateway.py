"""A gateway in a process of its own that tells what it holds: started by `sluice_gateway.launch` with CONFIG
LOG, on uvloop, as `sluice serve` runs it.

Says its URL in the first line of its output; then answers each line of its input with a line: what it holds
now, as JSON.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import uvloop

from sluice_gateway import config

from ..serving import Served, serving


def holdings(served: Served) -> dict[str, Any]:
    """Everything that a request may take, counted."""
    gateway = served.gateway
    gc.collect()
    snapshot = gateway.router.snapshot()
    return {
        "requests in the pipeline": gateway.pipeline.in_flight,
        "requests in flight to engines": sum(replica.in_flight for replica in snapshot.replicas),
        "requests in the queue": snapshot.waiting,
        "leases of the limiter": gateway.limiter.in_use,
        "idempotent answers being made": gateway.services.replays._idempotency.in_progress,
        "tasks": len(asyncio.all_tasks()),
        "descriptors": len(os.listdir("/proc/self/fd")),  # noqa: PTH208
        "rss": psutil.Process().memory_info().rss,
        "objects": Counter(f"{type(o).__module__}.{type(o).__qualname__}" for o in gc.get_objects()),
    }


async def serve_and_tell(path: Path, log_path: Path) -> None:
    settings = config.load(path, os.environ)
    with log_path.open("w") as log:
        async with serving(settings, os.environ, log=log) as served:
            print(served.url, flush=True)
            reader = asyncio.StreamReader()
            loop = asyncio.get_running_loop()
            await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
            while await reader.readline():
                print(json.dumps(holdings(served)), flush=True)


def main() -> int:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve_and_tell(Path(sys.argv[1]), Path(sys.argv[2])))
    return 0
