"""Running the gateway: the listening socket, uvicorn, signals, and an orderly end.

The order of an end: `/ready` turns 503 and new requests are refused; running ones may go on for `drain_s`;
what is left then gets an error event; connections close; managed engines stop. A second signal skips the
waiting. uvicorn's own signal handling is replaced, since it would end the process by the signal instead of
with status 0.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import signal
import socket
from collections.abc import Callable, Iterator

import uvicorn

from sluice_gateway import banner, logs
from sluice_gateway.application import build_application
from sluice_gateway.auth import OPEN
from sluice_gateway.config import ConfigError
from sluice_gateway.gateway import Gateway
from sluice_gateway.http_protocol import HttpProtocol
from sluice_gateway.settings import Settings

_BACKLOG = 2048
_KEEP_ALIVE_S = 30
_CLOSE_LIMIT_S = 2


def listen(settings: Settings) -> socket.socket:
    """The listening socket, before anything else is started. Raises `ConfigError` in one clear sentence."""
    host, port = settings.server.host, settings.server.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol must be named: only then does asyncio switch Nagle's algorithm off, which costs 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _limit_unread_data(listener, settings.server.write_timeout_s)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError(_why_not(host, port, error)) from error
    return listener


def _why_not(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        other = f"sluice serve --port {port + 10}"
        return f"Port {port} is in use; stop what listens there, or choose another: {other}"
    return f"Cannot listen on {host} port {port}: {error.strerror or error}."


def _limit_unread_data(listener: socket.socket, limit_s: float) -> None:
    """Have the kernel drop clients that read nothing, which no ASGI application can; accepted sockets
    inherit it."""
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    if option is not None:
        listener.setsockopt(socket.IPPROTO_TCP, option, int(2 * limit_s * 1000))


def run(gateway: Gateway, listener: socket.socket, say: Callable[[str], None]) -> None:
    """Serve until a signal, then end in order. `say` prints to the user."""
    server = _Server(_uvicorn_config(gateway))
    _calm_garbage_collector()
    with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
        runner.run(_serve(gateway, server, listener, say))


def _calm_garbage_collector() -> None:
    """What has been loaded until now stays for good and need not be looked at again; and a request leaves few
    cycles, so that looking for them can be rare. Measured: a tenth of the CPU time of a request."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def _uvicorn_config(gateway: Gateway) -> uvicorn.Config:
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
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _serve(
    gateway: Gateway, server: _Server, listener: socket.socket, say: Callable[[str], None]
) -> None:
    stop = asyncio.Event()
    hurry = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in stop_signals():
        loop.add_signal_handler(number, lambda: hurry.set() if stop.is_set() else stop.set())
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    greeting = asyncio.create_task(_greet(gateway, say))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    greeting.cancel()
    if not serving.done():
        say("Stopping; press Ctrl-C again to stop at once.")
        await _drain(gateway, hurry)
        server.should_exit = True
    stopping.cancel()
    await serving


def stop_signals() -> list[signal.Signals]:
    """A closed terminal (SIGHUP) is a signal to stop like the others, unless `nohup` had it ignored."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    return numbers


async def _drain(gateway: Gateway, hurry: asyncio.Event) -> None:
    draining = asyncio.create_task(gateway.drain(gateway.settings.server.drain_s))
    hurrying = asyncio.create_task(hurry.wait())
    await asyncio.wait({draining, hurrying}, return_when=asyncio.FIRST_COMPLETED)
    draining.cancel()
    hurrying.cancel()
    gateway.pipeline.interrupt_all()


async def _greet(gateway: Gateway, say: Callable[[str], None]) -> None:
    await gateway.health.wait_until_ready()
    settings = gateway.settings.server
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{settings.port}"
    models = [model.id for model in gateway.catalog.models(OPEN).data]
    say(banner.render(url, models, needs_key=not gateway.keyring.is_open))


def log_to_standard_error(settings: Settings) -> None:
    """Send the gateway's and uvicorn's logs where request lines go."""
    logs.configure(logs.standard_error(), settings.logs.format, (logs.LOGGER, logs.SERVER_LOGGER))
