"""The engine as the server sees it: an asynchronous front to a process of its own.

    engine = AsyncEngine(spawn_engine(config))
    await engine.start()
    async with engine.generate(request) as stream:
        async for delta in stream: ...

Leaving the `async with` block before a sequence has finished aborts it in the engine, whatever the reason:
cancellation, an error, or a reader that has seen enough. One message a step carries the new tokens of all
sequences; they are handed to the waiting streams inside the event loop's read callback, with no task between.

When the engine process dies, every stream raises `EngineStoppedError`, `healthy` turns false and `stopped`
returns. There is no restart here: a supervisor restarts the whole worker.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from types import TracebackType
from typing import NamedTuple, Self, cast

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
    encode,
    event_decoder,
)
from sluice_worker.errors import RequestError, WorkerError
from sluice_worker.outputs import EngineRequest, EngineStats, ModelInfo, SequenceDelta

DEFAULT_FACTORY = "sluice_worker.engine:Engine"
_EXIT_GRACE_S = 5.0

_THREAD_WAITS = {"OMP_WAIT_POLICY": "passive"}
"""OpenMP's threads spin between operations unless told otherwise, before torch is loaded. With another busy
process on the same cores that costs far more than the wake-ups saved: up to a hundredfold."""


class EngineStoppedError(WorkerError):
    """The engine process is gone, or the server has stopped serving requests. The message says why."""


class EngineProcess(NamedTuple):
    """A started engine process and our end of its socket."""

    process: subprocess.Popen[bytes]
    sock: socket.socket


def spawn_engine(config: EngineConfig, factory: str = DEFAULT_FACTORY) -> EngineProcess:
    """Start the engine process and tell it what to load; returns at once, while it loads.

    `factory` is `module:callable`, taking an `EngineConfig` and returning an engine.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with theirs:
        command = [sys.executable, "-m", "sluice_worker.engine_process", str(theirs.fileno()), factory]
        process = subprocess.Popen(
            command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, env={**_THREAD_WAITS, **os.environ}
        )
    ours.sendall(encode(Configure(config)))
    return EngineProcess(process, ours)


class GenerationStream:
    """The deltas of one or more sequences, in the order the engine produced them.

    An asynchronous iterator inside an `async with`; it ends when all its sequences have. Waiting for the next
    delta may be cancelled, for instance by a timeout, and taken up again: nothing is lost.
    """

    def __init__(self, engine: AsyncEngine, requests: tuple[EngineRequest, ...]) -> None:
        self._engine = engine
        self._requests = requests
        self._unfinished = {request.request_id for request in requests}
        self._deltas: deque[SequenceDelta] = deque()
        self._error: WorkerError | None = None
        self._waiter: asyncio.Future[None] | None = None

    async def __aenter__(self) -> Self:
        self._engine._open(self, self._requests)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SequenceDelta:
        """The next delta. Raises `RequestError` if one is refused, `EngineStoppedError` if none can come."""
        while not self._deltas:
            if self._error is not None:
                raise self._error
            if not self._unfinished:
                raise StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self._deltas.popleft()

    async def aclose(self) -> None:
        """Abort what has not finished. Idempotent."""
        self._engine._close(self._unfinished)
        self._unfinished = set()

    def drop(self, request_id: str) -> None:
        """Abort one of the sequences: its reader has seen enough. Deltas on their way are discarded."""
        self._unfinished.discard(request_id)
        self._engine._close({request_id})
        self._deltas = deque(delta for delta in self._deltas if delta.request_id != request_id)

    def push(self, delta: SequenceDelta) -> None:
        """A delta has arrived."""
        if delta.finish_reason is not None:
            self._unfinished.discard(delta.request_id)
        self._deltas.append(delta)
        self._wake()

    def fail(self, error: WorkerError) -> None:
        """No delta will arrive any more; those that have are still delivered."""
        self._error = error
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class AsyncEngine(asyncio.Protocol):
    """The server's end of the socket. Use it from one event loop only."""

    def __init__(self, engine_process: EngineProcess) -> None:
        self._process, self._sock = engine_process
        self._frames = FrameBuffer()
        self._decoder = event_decoder()
        self._transport: asyncio.Transport | None = None
        self._streams: dict[str, GenerationStream] = {}
        self._stats = EngineStats()
        self._model_info: ModelInfo | None = None
        self._changed = asyncio.Event()
        self._stopped: asyncio.Event = asyncio.Event()
        self._failure: str | None = None
        self._refusing: WorkerError | None = None

    @property
    def stats(self) -> EngineStats:
        """As of the last step."""
        return self._stats

    @property
    def model_info(self) -> ModelInfo | None:
        """What was loaded; `None` while loading."""
        return self._model_info

    @property
    def healthy(self) -> bool:
        """Whether the engine process lives; true while it loads."""
        return not self._stopped.is_set()

    @property
    def process_id(self) -> int:
        """Of the engine process."""
        return self._process.pid

    async def start(self) -> None:
        """Attach to the running event loop. Commands may be sent from now on."""
        loop = asyncio.get_running_loop()
        await loop.create_unix_connection(lambda: self, sock=self._sock)

    async def ready(self) -> ModelInfo:
        """Wait until the model is loaded. Raises `EngineStoppedError` when it could not be."""
        while self._model_info is None:
            if not self.healthy:
                raise EngineStoppedError(await self.stopped())
            self._changed.clear()
            await self._changed.wait()
        return self._model_info

    async def stopped(self) -> str:
        """Wait until the engine process has ended; returns one sentence that says why."""
        await self._stopped.wait()
        status = await self._reap()
        return self._failure or _describe_exit(status)

    def generate(self, *requests: EngineRequest) -> GenerationStream:
        """A stream of these sequences' deltas; they start when it is entered.

        Entering raises `EngineStoppedError` when the engine is gone. Request ids must be unique among those
        running.
        """
        return GenerationStream(self, requests)

    def stop_streams(self, reason: str) -> None:
        """End every stream with `EngineStoppedError(reason)` and refuse new ones: a drain took too long."""
        self._refusing = EngineStoppedError(reason)
        for request_id, stream in list(self._streams.items()):
            self._send(Abort(request_id))
            stream.fail(self._refusing)
        self._streams.clear()

    async def aclose(self) -> None:
        """End the engine process and wait for it; kill it when it does not end in time."""
        if self._transport is None:
            self._sock.close()
        else:
            self._transport.abort()
            await self._stopped.wait()
        await self._reap()

    async def _reap(self) -> int:
        try:
            return await asyncio.to_thread(self._process.wait, _EXIT_GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return await asyncio.to_thread(self._process.wait)

    # What GenerationStream calls.

    def _open(self, stream: GenerationStream, requests: tuple[EngineRequest, ...]) -> None:
        if self._refusing is not None:
            raise self._refusing
        for request in requests:
            self._streams[request.request_id] = stream
            self._send(Add(request))

    def _close(self, request_ids: set[str]) -> None:
        for request_id in request_ids:
            if self._streams.pop(request_id, None) is not None:
                self._send(Abort(request_id))

    def _send(self, command: Command) -> None:
        if self._transport is not None:
            self._transport.write(encode(command))

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is attached to the loop."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's does not inherit from it

    def data_received(self, data: bytes) -> None:
        """Hand out every event that is complete."""
        for payload in self._frames.feed(data):
            self._handle(self._decoder.decode(payload))

    def connection_lost(self, exc: Exception | None) -> None:
        """The engine process has ended, or `aclose` was called."""
        self._stopped.set()
        self._changed.set()
        self._refusing = EngineStoppedError("The inference engine has stopped.")
        for stream in set(self._streams.values()):
            stream.fail(self._refusing)
        self._streams.clear()

    def _handle(self, event: Event) -> None:
        match event:
            case Stepped(outputs):
                self._stats = outputs.stats
                for delta in outputs.deltas:
                    self._deliver(delta)
            case Refused(request_id, message, code):
                self._refuse(request_id, message, code)
            case Ready(model_info, stats):
                self._model_info, self._stats = model_info, stats
                self._changed.set()
            case Failed(message):
                self._failure = message

    def _deliver(self, delta: SequenceDelta) -> None:
        stream = self._streams.get(delta.request_id)
        if stream is None:
            return  # aborted while the step ran
        if delta.finish_reason is not None:
            del self._streams[delta.request_id]
        stream.push(delta)

    def _refuse(self, request_id: str, message: str, code: str | None) -> None:
        stream = self._streams.pop(request_id, None)
        if stream is not None:
            error = RequestError(message)
            error.code = code
            stream.fail(error)


def _describe_exit(status: int) -> str:
    if status < 0:
        name = signal.Signals(-status).name
        hint = " The machine may have run out of memory." if -status == signal.SIGKILL else ""
        return f"The engine process was ended by {name}.{hint}"
    return f"The engine process ended with status {status}."
