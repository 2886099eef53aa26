"""Running one process of the gateway: uvicorn, signals, and an orderly end.

The order of an end: `/ready` turns 503 and new requests are refused; running ones may go on for a while,
after SIGTERM for `drain_s`, after Ctrl-C for `interrupt_drain_s`; what is left then gets an error event;
connections close; managed engines stop. A second signal skips the waiting. uvicorn's own signal handling is
replaced, since it would end the process by the signal instead of with status 0.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import sys
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import uvicorn
import uvloop

from sluice_gateway import banner, logs
from sluice_gateway.application import build_application
from sluice_gateway.auth import OPEN
from sluice_gateway.config import ConfigError
from sluice_gateway.gateway import Gateway
from sluice_gateway.http_protocol import HttpProtocol
from sluice_gateway.listening import url_of
from sluice_gateway.metrics_server import MetricsServer
from sluice_gateway.overseer import Alone
from sluice_gateway.settings import Settings
from sluice_gateway.shutdown import Shutdown
from sluice_gateway.signals import STOPPING, heed

_KEEP_ALIVE_S = 30
_COLLECT = (5_000, 20, 100)
"""When the garbage collector looks at each generation."""
_SWITCH_S = 0.001
_CLOSE_LIMIT_S = 2


def run(
    gateway: Gateway, listener: socket.socket, say: Callable[[str], None], read: Callable[[], Settings]
) -> None:
    """Serve until a signal, then end in order.

    `say` prints to the user; `read` reads the configuration again. Raises `ConfigError` when it cannot start.
    """
    gateway.overseer = Alone(gateway, read)
    config = uvicorn_config(gateway)
    run_loop(_serve_alone(gateway, config, listener, say))


def run_loop(serving: Coroutine[Any, Any, None]) -> None:
    """Run what serves, in the event loop that it should have."""
    _calm_interpreter()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serving)


def _calm_interpreter() -> None:
    """Keep the interpreter's own work from standing in the event loop's way.

    What has been loaded until now stays for good and need not be looked at again; a request leaves few
    cycles, so that looking for them can be rare, and a little at a time, since the loop stands still
    meanwhile. Threads that write ledger and database hold Python's lock for a millisecond at most.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT)
    sys.setswitchinterval(_SWITCH_S)


def uvicorn_config(gateway: Gateway) -> uvicorn.Config:
    """The gateway as something to serve. Building it takes a moment, and belongs before `run_loop`."""
    return uvicorn.Config(
        build_application(gateway),
        loop="uvloop",
        http=HttpProtocol,
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_CLOSE_LIMIT_S,
    )


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._tell_started = started

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._tell_started()


async def _serve_alone(
    gateway: Gateway, config: uvicorn.Config, listener: socket.socket, say: Callable[[str], None]
) -> None:
    shutdown = Shutdown()
    reloading = heed(shutdown.ask, lambda: gateway.settings.server, gateway.overseer.reload)
    greeting = asyncio.create_task(_greet(gateway, say))
    page = MetricsServer(gateway.overseer.metrics_page)
    try:
        await page.start(gateway.settings.server)
        await serve(gateway, config, listener, shutdown, stopping=lambda: say(STOPPING))
    finally:
        greeting.cancel()
        reloading.cancel()
        await page.aclose()


async def serve(
    gateway: Gateway,
    config: uvicorn.Config,
    listener: socket.socket,
    shutdown: Shutdown,
    *,
    started: Callable[[], None] = lambda: None,
    stopping: Callable[[], None] = lambda: None,
    drained: Callable[[], None] = lambda: None,
) -> None:
    """Serve until asked to stop, then end in order.

    `started` is called when connections are accepted, `stopping` when the end begins, `drained` when no
    request is left. Raises `ConfigError` when it cannot start.
    """
    server = _Server(config, started)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    asked = asyncio.create_task(shutdown.asked.wait())
    await asyncio.wait({serving, asked}, return_when=asyncio.FIRST_COMPLETED)
    asked.cancel()
    if not serving.done():
        stopping()
        await _unless_hurried(gateway.drain(shutdown.drain_s), shutdown)
        gateway.interrupt_all()
        drained()
        await _unless_hurried(shutdown.released.wait(), shutdown)
        server.should_exit = True
    await serving
    if not server.started:
        raise ConfigError("The gateway could not start; the log says why.")


async def _unless_hurried(work: Coroutine[Any, Any, object], shutdown: Shutdown) -> None:
    working = asyncio.create_task(work)
    hurried = asyncio.create_task(shutdown.hurried.wait())
    await asyncio.wait({working, hurried}, return_when=asyncio.FIRST_COMPLETED)
    working.cancel()
    hurried.cancel()


async def _greet(gateway: Gateway, say: Callable[[str], None]) -> None:
    greeting = await greeting_of(gateway)
    say(banner.render(url_of(gateway.settings.server), greeting[0], needs_key=greeting[1]))


async def greeting_of(gateway: Gateway) -> tuple[list[str], bool]:
    """Once an engine can serve: the models, and whether clients need a key."""
    await gateway.health.wait_until_ready()
    return [model.id for model in gateway.catalog.models(OPEN).data], not gateway.keyring.is_open


def log_to_standard_error(settings: Settings) -> None:
    """Send the gateway's and uvicorn's logs where request lines go."""
    logs.configure(logs.standard_error(), settings.logs.format, (logs.LOGGER, logs.SERVER_LOGGER))
