"""A gateway in a thread of its own, before engines that never fail: whatever fails is the gateway's fault.

The tests stay synchronous, as Hypothesis and Schemathesis like it, and talk to it over sockets.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings

from sluice_gateway.auth import digest

from ..serving import ECHO, PATIENCE_S, Served, serving, settings_of
from ..torture.visits import KINDS
from ..torture.wild_engine import WildEngine

ADMIN = "sk-fuzz-admin"
EXAMPLES = int(os.environ.get("SLUICE_FUZZ_EXAMPLES", "150"))
"""`make fuzz` takes many more, and other ones each time."""


def fuzzing(share: float = 1.0) -> settings:
    """How much is tried: a share of what was asked for."""
    return settings(
        max_examples=max(1, int(EXAMPLES * share)),
        deadline=None,
        derandomize="SLUICE_FUZZ_EXAMPLES" not in os.environ,
        suppress_health_check=list(HealthCheck),
    )


class FuzzedGateway:
    """What the tests see of it."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self.url = served.url
        self.port = int(served.url.rpartition(":")[2])

    def log(self) -> str:
        text: str = self._served.log.getvalue()
        return text

    def check_nothing_stays(self) -> None:
        """No request is on its way, and no bug was logged."""
        deadline = time.monotonic() + PATIENCE_S
        while self._served.gateway.pipeline.in_flight or self._served.occupied:
            assert time.monotonic() < deadline, "a request is still on its way"
            time.sleep(0.005)
        assert "Traceback" not in self.log(), self.log()[-3000:]


@contextmanager
def fuzzed_gateway(folder: Path, *, keys: bool = True, **sections: Any) -> Iterator[FuzzedGateway]:
    """Serve until the block ends."""
    started: list[FuzzedGateway] = []
    failed: list[BaseException] = []
    ready, over = threading.Event(), threading.Event()

    async def live() -> None:
        engine = WildEngine()
        main = {"name": "main", "adapter": "openai_compatible", "url": await engine.start(), "models": ["m"]}
        common = {
            "backends": [{**main, "endpoints": list(KINDS)}, ECHO],
            "files": {"dir": str(folder / "files")},
            "ledger": {"journal_folder": str(folder / "journal")},
            "store": {"url": f"sqlite:///{folder}/store.db"},
            "keys": [{"id": "root", "sha256": digest(ADMIN), "admin": True}] if keys else [],
        }
        async with serving(settings_of(**{**common, **sections}), keep_alive_s=5) as served:
            await served.gateway.health.wait_until_looked()
            started.append(FuzzedGateway(served))
            ready.set()
            await asyncio.to_thread(over.wait)
        engine.close()

    def run() -> None:
        try:
            asyncio.run(live())
        except BaseException as error:
            failed.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    ready.wait(PATIENCE_S)
    try:
        assert started, failed
        yield started[0]
    finally:
        over.set()
        thread.join(PATIENCE_S)
    assert not failed, failed
