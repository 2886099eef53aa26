"""The engine's own process: reads commands from a socket, steps the engine, sends what came out.

Started by `async_engine` as `python -m sluice_worker.engine_process FD FACTORY`. torch is imported here and
only here. Between steps the inbox is drained without waiting; with nothing to run the process is blocked on
the socket and uses no processor time, until a command comes or the time at which a batch is due.

The process lives no longer than its parent: the other end of the socket closes when the parent ends, however
it ends. A thread watches for that, so that a long load or step does not delay it.
"""

from __future__ import annotations

import gc
import importlib
import logging
import math
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import Protocol

from sluice_worker.config import EngineConfig
from sluice_worker.engine_messages import (
    Abort,
    Add,
    Command,
    Configure,
    Event,
    Failed,
    FrameBuffer,
    Ready,
    Refused,
    Stepped,
    command_decoder,
    encode,
)
from sluice_worker.errors import RequestError, WorkerError
from sluice_worker.outputs import EngineRequest, EngineStats, ModelInfo, StepOutputs

_READ_BYTES = 1 << 20
_log = logging.getLogger(__name__)


class EngineCore(Protocol):
    """What this process needs of an engine; `sluice_worker.engine.Engine` is the real one."""

    def add_request(self, request: EngineRequest) -> None:
        """Queue a sequence. Raises `RequestError` when it can never run."""
        ...

    def abort(self, request_id: str) -> None:
        """Drop a sequence; unknown ids are ignored."""
        ...

    def step(self) -> StepOutputs:
        """Compute one step for whatever is scheduled."""
        ...

    def wait_s(self) -> float | None:
        """Seconds until `step` has anything to do: 0 is now; `None` is not before another command."""
        ...

    def stats(self) -> EngineStats:
        """Gauges and counters as they are now."""
        ...

    def model_info(self) -> ModelInfo:
        """What was loaded."""
        ...


EngineFactory = Callable[[EngineConfig], EngineCore]


class CommandChannel:
    """The engine's end of the socket: blocking, for a while, or not at all while there is work."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._frames = FrameBuffer()
        self._decoder = command_decoder()
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)

    def receive(self, wait_s: float | None) -> list[Command]:
        """Commands that have arrived, after waiting for the first at most `wait_s`; `None` waits forever.

        Raises `EOFError` without a server.
        """
        if wait_s is not None:
            # Rounded up: a timeout that ends early would be asked for again, and again.
            readable = self._poll.poll(math.ceil(wait_s * 1000))
            return self._read() if readable else []
        commands = self._read()
        while not commands:
            commands = self._read()
        return commands

    def send(self, event: Event) -> None:
        """Send one event, waiting while the server does not read. Raises `OSError` when it is gone."""
        self._sock.sendall(encode(event))

    def send_last(self, event: Event) -> None:
        """Send, and wait until the server has closed its end.

        Closing first, with commands still unread, would reset the connection, and the event with it.
        """
        self.send(event)
        self._sock.shutdown(socket.SHUT_WR)
        while self._sock.recv(_READ_BYTES):
            pass

    def _read(self) -> list[Command]:
        """What is there, waiting for it if nothing is; empty for a part of a command."""
        data = self._sock.recv(_READ_BYTES)
        if not data:
            raise EOFError
        return [self._decoder.decode(payload) for payload in self._frames.feed(data)]


def run_engine(engine: EngineCore, channel: CommandChannel) -> None:
    """Serve commands until the server closes its end (`EOFError`, or `OSError` while sending)."""
    while True:
        commands = channel.receive(engine.wait_s())
        for command in commands:
            _apply(command, engine, channel)
        if engine.wait_s() == 0:
            channel.send(Stepped(engine.step()))
        elif commands:
            # No step follows an abort of the last sequence, or a request that waits; the gauges have changed.
            channel.send(Stepped(StepOutputs(deltas=[], stats=engine.stats())))


def _apply(command: Command, engine: EngineCore, channel: CommandChannel) -> None:
    match command:
        case Add(request):
            try:
                engine.add_request(request)
            except RequestError as error:
                channel.send(Refused(request.request_id, str(error), error.code))
        case Abort(request_id):
            engine.abort(request_id)
        case Configure():
            raise ValueError("an engine is configured once")


def _load(factory_name: str, config: EngineConfig) -> EngineCore:
    # Importing torch makes objects that stay; looking for cycles among them takes a tenth of that time.
    gc.disable()
    module_name, _, attribute = factory_name.partition(":")
    factory: EngineFactory = getattr(importlib.import_module(module_name), attribute)
    engine = factory(config)
    # What was loaded stays: keep it out of every later garbage collection.
    gc.collect()
    gc.freeze()
    gc.enable()
    return engine


def _serve(channel: CommandChannel, factory_name: str) -> None:
    """Load and run. Raises whatever goes wrong."""
    first = channel.receive(None)[0]
    if not isinstance(first, Configure):
        raise ValueError("the first command must configure the engine")
    engine = _load(factory_name, first.config)
    channel.send(Ready(engine.model_info(), engine.stats()))
    run_engine(engine, channel)


def _exit_when_hung_up(sock: socket.socket) -> None:
    """End the process as soon as the peer's end of `sock` is closed."""
    poll = select.poll()
    poll.register(sock, 0)  # hang-up is reported unasked; data is not, so the thread sleeps until then
    poll.poll()
    os._exit(0)


def main(arguments: list[str]) -> int:
    """Run the process until the server hangs up; why the engine failed is told by message, not by status."""
    # Ctrl-C and a group-wide SIGTERM reach this process too. The server decides: it may want to drain first.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    descriptor, factory_name = arguments
    sock = socket.socket(fileno=int(descriptor))
    threading.Thread(target=_exit_when_hung_up, args=(sock,), daemon=True).start()
    channel = CommandChannel(sock)
    try:
        _serve(channel, factory_name)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        _log.debug("The server has gone.")
    except WorkerError as error:
        channel.send_last(Failed(str(error)))
    except Exception as error:
        _log.exception("The engine failed.")
        channel.send_last(Failed(f"The engine failed: {type(error).__name__}: {error}"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
