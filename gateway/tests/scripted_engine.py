"""An engine on a real port that answers exactly as a test tells it to, and knows who left."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any


class Call:
    """One request that the engine got, and the means to answer it."""

    def __init__(self, path: str, headers: dict[str, str], body: bytes, writer: asyncio.StreamWriter) -> None:
        self.path = path
        self.headers = headers
        self.body = body
        self.left = asyncio.Event()
        """Set when the gateway has closed the connection."""
        self._writer = writer
        self._chunked = False

    @property
    def fields(self) -> Any:
        return json.loads(self.body)

    async def answer(self, status: int, body: Any, **headers: str) -> None:
        """A complete answer; `body` is JSON unless it is bytes."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = {"content-type": "application/json", "content-length": str(len(content)), **headers}
        await self._write(_head(status, head) + content)

    async def promise(self, length: int, first: bytes) -> None:
        """A plain answer's head and its first bytes; more are promised."""
        await self._write(
            _head(200, {"content-type": "application/json", "content-length": str(length)}) + first
        )

    async def start_events(self) -> None:
        head = {"content-type": "text/event-stream", "transfer-encoding": "chunked"}
        await self._write(_head(200, head))

    async def write(self, *pieces: bytes) -> None:
        """Chunks of a stream."""
        for piece in pieces:
            await self._write(b"%x\r\n%b\r\n" % (len(piece), piece))

    async def end(self) -> None:
        await self._write(b"0\r\n\r\n")

    async def stream(self, *pieces: bytes) -> None:
        """A whole stream."""
        await self.start_events()
        await self.write(*pieces)
        await self.end()

    def reset(self) -> None:
        """Lose the connection."""
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self._writer.transport.abort()

    async def _write(self, data: bytes) -> None:
        with suppress(ConnectionError):
            self._writer.write(data)
            await self._writer.drain()
        await asyncio.sleep(0)  # `drain` of a lost connection does not wait: let others notice the loss


Script = Callable[[Call], Awaitable[None]]


class ScriptedEngine:
    """Serves `/v1/models`, and every POST by `script`."""

    def __init__(self, script: Script, models: tuple[str, ...] = ("m",)) -> None:
        self.script = script
        self.models = models
        self.pages: dict[str, tuple[int, bytes]] = {}
        """Status and body by path, for GET; any other path lists the models."""
        self.stalled: set[str] = set()
        """Paths that are never answered."""
        self.calls: list[Call] = []
        self.url = ""
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, port: int = 0) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        self.url = f"http://127.0.0.1:{self.port}"

    async def start_unix(self, path: str) -> None:
        """Listen on a Unix socket instead."""
        self._server = await asyncio.start_unix_server(self._serve, path)
        self.url = f"http+unix://{path}"

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Die: close the port and every connection."""
        if self._server is not None:
            self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                while True:
                    await self._one(reader, writer)
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, path, _ = head[0].split(" ")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        call = Call(path, headers, body, writer)
        if path in self.stalled:
            await asyncio.Event().wait()
        if path in self.pages:
            status, page = self.pages[path]
            await call.answer(status, page)
            return
        if method == "GET":
            await call.answer(200, {"data": [{"id": model} for model in self.models]})
            return
        self.calls.append(call)
        watcher = asyncio.create_task(_watch(reader, call))
        try:
            await self.script(call)
        finally:
            watcher.cancel()
            with suppress(asyncio.CancelledError):
                await watcher


async def _watch(reader: asyncio.StreamReader, call: Call) -> None:
    """Notice that the gateway has closed: between requests it sends nothing."""
    with suppress(ConnectionError):
        # Not `read`: that would steal the next request of a connection that is kept.
        await reader._wait_for_data("watch")  # type: ignore[attr-defined]
    if reader.at_eof() or reader.exception() is not None:
        call.left.set()


def _head(status: int, headers: dict[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} Whatever\r\n{lines}\r\n".encode()


def event(**fields: Any) -> bytes:
    """One event of a chat stream."""
    return b"data: " + json.dumps({"id": "c", "object": "chat.completion.chunk", **fields}).encode() + b"\n\n"


def delta(text: str) -> bytes:
    """An event with content."""
    return event(choices=[{"index": 0, "delta": {"content": text}, "finish_reason": None}])


ROLE = event(choices=[{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}])
FINISH = event(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])
USAGE = event(choices=[], usage={"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9})
DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"

PLAIN = {
    "id": "c",
    "object": "chat.completion",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 7, "completion_tokens": 1, "total_tokens": 8},
}


async def plain(call: Call) -> None:
    """A script: answer at once."""
    await call.answer(200, PLAIN)


async def streamed(call: Call) -> None:
    """A script: a short stream, with its usage if asked."""
    options = call.fields.get("stream_options") or {}
    usage = (USAGE,) if options.get("include_usage") else ()
    await call.stream(ROLE, delta("Hel"), delta("lo"), FINISH, *usage, DONE)
