"""One worker process: a whole gateway on a socket that the supervisor opened.

Run as `python -m sluice_gateway.launch sluice_gateway.supervisor.worker LISTEN_FD CONTROL_FD`. Its settings
come from the supervisor, so that a worker that is started again has the configuration that is in force,
whatever the file says meanwhile. Signals of a terminal do not reach it (it has a session of its own); SIGTERM
to it alone ends it in good order, and the supervisor starts another.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import signal
import socket
import sys

import msgspec
import uvicorn

from sluice_gateway import server
from sluice_gateway.compiled import finder
from sluice_gateway.config import ConfigError
from sluice_gateway.gateway import Gateway
from sluice_gateway.logs import standard_error
from sluice_gateway.shutdown import Shutdown
from sluice_gateway.supervisor.link import SupervisorLink
from sluice_gateway.supervisor.messages import Channel, Configure, ToWorker, read_one

_log = logging.getLogger("sluice")


def main() -> int:
    """Serve until told to stop, or until the supervisor is gone. The exit status."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    try:
        _run(int(sys.argv[1]), int(sys.argv[2]))
    except ConfigError as error:
        sys.stderr.write(f"sluice: {error}\n")
        return 1
    return 0


def _run(listen_fd: int, control_fd: int) -> None:
    faulthandler.enable()  # what the supervisor sends to a worker that hangs is SIGABRT
    listener, control = socket.socket(fileno=listen_fd), socket.socket(fileno=control_fd)
    try:
        configure = read_one(control, Configure)
    except (EOFError, OSError):
        return
    server.log_to_standard_error(configure.settings)
    gateway = Gateway(configure.settings, os.environ, standard_error())
    _log.info("worker %d %s", os.getpid(), finder.describe())
    config = server.uvicorn_config(gateway)
    server.run_loop(_serve(gateway, config, listener, control, configure.number))


async def _serve(
    gateway: Gateway, config: uvicorn.Config, listener: socket.socket, control: socket.socket, number: int
) -> None:
    channel = await Channel.open(control, msgspec.msgpack.Decoder[ToWorker](ToWorker))
    shutdown = Shutdown()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, lambda: shutdown.ask(gateway.settings.server.drain_s))
    link = SupervisorLink(gateway, channel, shutdown, number)
    gateway.overseer = link
    tasks = [asyncio.create_task(work) for work in (link.listen(), link.report(), _tell_ready(gateway, link))]
    try:
        await server.serve(
            gateway, config, listener, shutdown, started=link.tell_started, drained=link.tell_drained
        )
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await link.aclose()


async def _tell_ready(gateway: Gateway, link: SupervisorLink) -> None:
    models, needs_key = await server.greeting_of(gateway)
    link.tell_ready(models, needs_key=needs_key)
