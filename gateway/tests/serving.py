"""A real gateway on a real port, in the test's own event loop."""

from __future__ import annotations

import asyncio
import io
import logging
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TextIO

import httpx
import msgspec
import uvicorn

from sluice_gateway import logs
from sluice_gateway.application import build_application
from sluice_gateway.gateway import Gateway
from sluice_gateway.http_protocol import HttpProtocol
from sluice_gateway.settings import Settings

from .prompt_server import PromptServer

PATIENCE_S = 20.0
"""How long a test may hang before it fails. Never a measure of speed."""

IN_MEMORY = {"url": "sqlite:///:memory:"}
FAST_PROBES = {"interval_s": 0.05, "timeout_s": 1.0}


@dataclass(frozen=True)
class Served:
    """A gateway that answers at `url`."""

    url: str
    gateway: Gateway
    http: httpx.AsyncClient
    log: Any
    """What was logged: a `StringIO` unless the test gave another."""

    def metric(self, name: str, **labels: str) -> float:
        """One sample's value; 0 when it is not there yet."""
        return self.gateway.metrics.registry.get_sample_value(f"sluice_gateway_{name}", labels) or 0.0

    @property
    def occupied(self) -> int:
        """Slots taken on engines plus places taken in the queue."""
        snapshot = self.gateway.router.snapshot()
        return snapshot.waiting + sum(replica.in_flight for replica in snapshot.replicas)

    async def until_idle(self) -> None:
        """Return once nothing is held by any request."""
        await eventually(lambda: self.gateway.pipeline.in_flight == 0 and self.occupied == 0)


def settings_of(**values: Any) -> Settings:
    """Settings as a file would give them, with a store that leaves nothing behind."""
    return msgspec.convert({"health": FAST_PROBES, "store": IN_MEMORY, **values}, Settings)


@asynccontextmanager
async def serving(
    settings: Settings,
    environment: Mapping[str, str] | None = None,
    *,
    until_ready: bool = True,
    keep_alive_s: int = 30,
    log: TextIO | None = None,
) -> AsyncIterator[Served]:
    """Serve until the block ends."""
    log = log or io.StringIO()
    logs.configure(log, settings.logs.format)
    gateway = Gateway(settings, environment or {}, log)
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    config = uvicorn.Config(
        build_application(gateway),
        lifespan="on",
        log_config=None,
        access_log=False,
        http=HttpProtocol,
        timeout_keep_alive=keep_alive_s,
        timeout_graceful_shutdown=1,
    )
    server = PromptServer(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        async with httpx.AsyncClient(base_url=url, timeout=PATIENCE_S, verify=False) as http:
            await eventually(lambda: server.started or task.done())
            if until_ready:
                async with asyncio.timeout(PATIENCE_S):
                    await gateway.health.wait_until_ready()
            yield Served(url, gateway, http, log)
    finally:
        server.stop()
        await task
        logging.getLogger(logs.LOGGER).handlers.clear()


async def eventually(condition: Callable[[], bool]) -> None:
    """Return once `condition` holds; fail the test if it never does."""
    for _ in range(int(PATIENCE_S / 0.002)):
        if condition():
            return
        await asyncio.sleep(0.002)
    raise AssertionError("the condition never became true")


def chat(model: str = "m", text: str = "Hello there", **more: Any) -> dict[str, Any]:
    """The body of a chat request."""
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


ECHO = {"name": "echo", "adapter": "echo", "models": ["echo"]}
