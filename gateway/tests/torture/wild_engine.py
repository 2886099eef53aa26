"""An engine that behaves, for each request, as the request's own headers say, and knows when it was let go.

    x-echo-id       a number, which comes back in the answer, so that no mix-up goes unseen
    x-echo-way      what to do, see `WAYS`
    x-echo-ms       how long that takes
    x-echo-stream   answer with events

As fast as Python gets, since it shares a core with the clients of a storm. As a command of its own
(`python -m gateway.tests.torture.wild_engine PORT`) it can be killed.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import Callable
from time import perf_counter
from typing import cast

import httptools

from ..scripted_engine import DONE, FINISH, ROLE, delta, event

WAYS = (
    "ok",
    "slow",
    "half",
    "drip",
    "hang",
    "refuse",
    "fail",
    "busy",
    "reset",
    "cut",
    "garbage",
    "error event",
)
"""`half` sends the first half of a plain answer and the rest later, `drip` spreads its events over the time,
`hang` says nothing until it is let go."""
FAILING = frozenset({"refuse", "fail", "busy", "reset", "cut", "garbage", "error event"})

AS_ASKED = "as asked"
"""What a failure says."""
_STATUSES = {"refuse": 400, "fail": 500, "busy": 503}
_EVENTS = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_DRIPS = 6
_USAGE = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}


def marker(number: int) -> str:
    """What an answer to request `number` has to hold."""
    return f"<{number}>"


class WildEngine:
    """All connections to it."""

    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        self._clock = clock
        self._servers: list[asyncio.Server] = []
        self.begun: dict[int, asyncio.Future[None]] = {}
        """Who wants to know when a request has come puts a future here."""
        self.gone: dict[int, asyncio.Future[float]] = {}
        """And here, who wants to know when its connection was closed before the answer was complete."""
        self.running = 0
        self.served = 0

    async def start(self, port: int = 0) -> str:
        """Listen; its URL."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Connection(self, loop), "127.0.0.1", port)
        self._servers.append(server)
        return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    def close(self) -> None:
        for server in self._servers:
            server.close()

    def note_loss(self, number: int) -> None:
        """A connection was closed amid a request."""
        waiting = self.gone.pop(number, None)
        if waiting is not None:
            waiting.set_result(self._clock())


class _Connection(asyncio.Protocol):
    """One connection, one request at a time: the gateway never sends two."""

    def __init__(self, engine: WildEngine, loop: asyncio.AbstractEventLoop) -> None:
        self._engine = engine
        self._loop = loop
        self._parser = httptools.HttpRequestParser(self)
        self._headers: dict[bytes, bytes] = {}
        self._path = b""
        self._body = b""
        self._number: int | None = None
        self._later: list[asyncio.TimerHandle] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        for handle in self._later:
            handle.cancel()
        if self._number is not None:
            self._engine.note_loss(self._number)
            self._over()

    def on_message_begin(self) -> None:
        self._headers, self._path, self._body = {}, b"", b""

    def on_url(self, url: bytes) -> None:
        self._path += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if self._parser.get_method() == b"GET":
            self._send(MODELS)
            return
        headers = self._headers
        self._number = number = int(headers.get(b"x-echo-id", b"0"))
        self._engine.running += 1
        self._later.clear()
        waiting = self._engine.begun.pop(number, None)
        if waiting is not None:
            waiting.set_result(None)
        way = headers.get(b"x-echo-way", b"ok").decode()
        if b"x-echo-stream" in headers:
            self._answer_in_events(way, self._delay_s())
        else:
            self._answer_whole(way, self._delay_s())

    def _delay_s(self) -> float:
        return int(self._headers.get(b"x-echo-ms", b"0")) / 1000

    def _answer_whole(self, way: str, delay_s: float) -> None:
        answer = _whole(200, self._content(), self._content_type())
        half = len(answer) - 10
        if way == "ok":
            self._send(answer, last=True)
        elif way == "slow":
            self._after(delay_s, lambda: self._send(answer, last=True))
        elif way in ("half", "drip"):
            self._send(answer[:half])
            self._after(delay_s, lambda: self._send(answer[half:], last=True))
        elif way in _STATUSES:
            self._send(_whole(_STATUSES[way], {"error": {"message": AS_ASKED}}), last=True)
        elif way in ("cut", "error event"):
            self._send(answer[:half])
            self._after(delay_s, self._reset)
        elif way == "reset":
            self._reset()
        elif way == "garbage":
            self._send(b"\0\1\2 nonsense\r\n\r\n", last=True)

    def _answer_in_events(self, way: str, delay_s: float) -> None:
        if way in ("reset", "garbage", *_STATUSES):
            self._answer_whole(way, delay_s)
            return
        if way == "hang":
            return
        words = self._words()
        if way == "drip":
            self._send(_EVENTS + _chunk(words[0]))
            for number, word in enumerate(words[1:], start=1):
                pause_s = delay_s * number / len(words)
                self._after(pause_s, lambda word=word: self._send(_chunk(word)))
            self._after(delay_s, lambda: self._send(_chunk(DONE) + b"0\r\n\r\n", last=True))
        elif way == "cut":
            self._send(_EVENTS + _chunk(words[0] + words[1]))
            self._after(delay_s, self._reset)
        elif way == "error event":
            broken = _chunk(event(error={"message": AS_ASKED, "code": 500})) + b"0\r\n\r\n"
            self._send(_EVENTS + _chunk(words[0] + words[1]) + broken, last=True)
        else:
            whole = _EVENTS + _chunk(b"".join(words) + DONE) + b"0\r\n\r\n"
            self._after(0 if way == "ok" else delay_s, lambda: self._send(whole, last=True))

    def _words(self) -> list[bytes]:
        text = marker(self._number or 0)
        if self._path == b"/v1/completions":
            words = [
                event(choices=[{"index": 0, "text": word, "finish_reason": None}]) for word in (text, " a")
            ]
            return [*words, event(choices=[{"index": 0, "text": "", "finish_reason": "stop"}])]
        return [ROLE, delta(text), *[delta("word ")] * _DRIPS, FINISH]

    def _content(self) -> bytes | dict[str, object]:
        number = self._number or 0
        text = marker(number)
        if self._path == b"/v1/audio/speech":
            return text.encode() * 50
        if self._path == b"/tokenize":
            return {"count": number, "tokens": [1], "text": text}
        if self._path == b"/v1/chat/completions":
            message = {"role": "assistant", "content": text}
            choice: dict[str, object] = {"index": 0, "message": message, "finish_reason": "stop"}
            return {"id": "c", "object": "chat.completion", "choices": [choice], "usage": _USAGE}
        return {"data": text, "usage": _USAGE}

    def _content_type(self) -> bytes:
        return b"audio/mpeg" if self._path == b"/v1/audio/speech" else b"application/json"

    def _after(self, delay_s: float, act: Callable[[], None]) -> None:
        self._later.append(self._loop.call_later(delay_s, act))

    def _send(self, data: bytes, *, last: bool = False) -> None:
        self._transport.write(data)
        if last:
            self._over()

    def _reset(self) -> None:
        self._over()
        sock = self._transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self._transport.abort()

    def _over(self) -> None:
        if self._number is not None:
            self._number = None
            self._engine.running -= 1
            self._engine.served += 1


def _whole(status: int, content: bytes | dict[str, object], kind: bytes = b"application/json") -> bytes:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    head = b"HTTP/1.1 %d X\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n" % (status, kind, len(body))
    return head + body


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


MODELS = _whole(200, {"data": [{"id": model} for model in ("m", "narrow", "nowhere")]})


async def _serve_for_ever(port: int) -> None:
    await WildEngine().start(port)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve_for_ever(int(sys.argv[1])))
