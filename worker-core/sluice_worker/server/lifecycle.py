"""One server's life: start, ready, drain, stop.

The port is bound and answering before the model is loaded, so that `/health` and `/ready` can tell the two
apart. SIGTERM and SIGINT stop listening and let requests in flight finish for `drain_s`; what is left then
gets an error and is aborted. A second signal does not wait. When the engine process dies, the server stops
too and says why: whoever supervises it starts a new one.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import secrets
import signal
import socket
import time
from collections.abc import Callable, Iterator

import msgspec
import uvicorn

from sluice_worker.async_engine import AsyncEngine, EngineProcess, EngineStoppedError
from sluice_worker.outputs import ModelInfo
from sluice_worker.server.app import WorkerApp
from sluice_worker.server.metrics import Metrics
from sluice_worker.server.served_model import ServedModel
from sluice_worker.server.service import Service
from sluice_worker.server.sse import SILENCE_S

_FORCE_AFTER_DRAIN_S = 2
_COLLECT = (5_000, 20, 100)


class ServerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of the HTTP side."""

    max_body_bytes: int = 16 * 2**20
    drain_s: float = 3.0
    """How long requests in flight may go on after a signal to stop."""
    keep_alive_s: float = SILENCE_S


async def run_server(
    spawned: EngineProcess,
    listener: socket.socket,
    model: ServedModel,
    settings: ServerSettings,
    on_ready: Callable[[ModelInfo], None],
) -> str | None:
    """Serve until a signal or until the engine dies; returns why it died, or `None` after a signal.

    The engine process is gone and `listener` closed when this returns.
    """
    _calm_collector()
    engine = AsyncEngine(spawned)
    await engine.start()
    server = _Server(_uvicorn_config(WorkerApp(_service(engine, model, settings)), settings))
    _stop_on_signals(server, engine, settings.drain_s)
    readiness = asyncio.create_task(_announce(engine, on_ready))
    death = asyncio.create_task(_stop_when_dead(engine, server))
    try:
        await server.serve(sockets=[listener])
    finally:
        failure = death.result() if death.done() else None
        death.cancel()
        readiness.cancel()
        await engine.aclose()
    return failure


def _calm_collector() -> None:
    """Look for cycles rarely: tokens leave none, and what has been loaded until now stays for good."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT)


def _service(engine: AsyncEngine, model: ServedModel, settings: ServerSettings) -> Service:
    return Service(
        engine=engine,
        model=model,
        metrics=Metrics(lambda: engine.stats, lambda: engine.model_info),
        clock=time.monotonic,
        wall_clock=time.time,
        random_bits=secrets.randbits,
        max_body_bytes=settings.max_body_bytes,
        keep_alive_s=settings.keep_alive_s,
    )


async def _announce(engine: AsyncEngine, on_ready: Callable[[ModelInfo], None]) -> None:
    with contextlib.suppress(EngineStoppedError):  # `_stop_when_dead` reports that
        on_ready(await engine.ready())


async def _stop_when_dead(engine: AsyncEngine, server: uvicorn.Server) -> str:
    reason = await engine.stopped()
    server.should_exit = True
    return reason


def _stop_on_signals(server: uvicorn.Server, engine: AsyncEngine, drain_s: float) -> None:
    loop = asyncio.get_running_loop()

    def stop() -> None:
        wait_s = 0.0 if server.should_exit else drain_s
        server.should_exit = True
        loop.call_later(wait_s, engine.stop_streams, "The server is shutting down.")

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)


def _uvicorn_config(app: WorkerApp, settings: ServerSettings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="off",
        interface="asgi3",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=int(settings.drain_s) + _FORCE_AFTER_DRAIN_S,
    )


class _Server(uvicorn.Server):
    """uvicorn, but for signals: those are handled by the loop, and draining is ours to decide."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signal handlers alone."""
        yield
