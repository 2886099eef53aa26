"""One server that does everything a load client may be fooled by; the request's model name chooses what.

A behaviour is a script: bytes are sent, numbers are seconds of silence. Scripts answer streams unless they
say otherwise.
"""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sluice_bench.target import Target, WireRequest, http_request

Script = Sequence[bytes | float]

PAUSE_S = 0.06
"""Long beside what a loopback read takes, so that before and after it cannot be mistaken."""

LONG_EVENTS = 2_000
LONG_TEXT = "x" * 2_000

_STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n%bTransfer-Encoding: chunked\r\n\r\n"
HEAD = _STREAM_HEAD % b""
END = b"0\r\n\r\n"


def chunk(payload: bytes) -> bytes:
    """HTTP's framing of some bytes."""
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def event(delta: dict[str, Any] | None, **more: Any) -> bytes:
    """One SSE event; without a delta it has no choices."""
    choices = [] if delta is None else [{"index": 0, "delta": delta, **more.pop("choice", {})}]
    return chunk(b"data: " + json.dumps({"choices": choices, **more}).encode() + b"\n\n")


def word(text: str, **more: Any) -> bytes:
    """An event with text."""
    return event({"content": text}, **more)


def usage(completion: int, **more: Any) -> dict[str, Any]:
    """A usage object."""
    return {"prompt_tokens": 16, "completion_tokens": completion, **more}


FINISH = event({}, choice={"finish_reason": "stop"})
DONE = chunk(b"data: [DONE]\n\n") + END


def last(completion: int, **more: Any) -> bytes:
    """Finish, usage, the end."""
    return FINISH + event(None, usage=usage(completion, **more)) + DONE


def four_tokens(text: str) -> bytes:
    """An event whose log-probabilities list four tokens."""
    return word(text, choice={"logprobs": {"content": [{"token": "t", "logprob": -1.0}] * 4}})


def plain(answer: dict[str, Any]) -> bytes:
    """A whole answer that is no stream."""
    body = json.dumps(answer).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
        len(body),
        body,
    )


_MESSAGE = {"index": 0, "message": {"role": "assistant", "content": "a b c"}, "finish_reason": "stop"}

SCRIPTS: dict[str, Script] = {
    "role-first": [
        HEAD + event({"role": "assistant", "content": ""}),
        PAUSE_S,
        word("a"),
        PAUSE_S,
        word("b") + last(2),
    ],
    "comments": [
        HEAD + chunk(b": keep-alive\n\n"),
        PAUSE_S,
        word("a"),
        PAUSE_S / 2,
        chunk(b": keep-alive\n\n"),
        PAUSE_S / 2,
        word("b") + last(2),
    ],
    "late-usage": [
        HEAD + word("a"),
        PAUSE_S,
        word("b") + FINISH,
        PAUSE_S,
        event(None, usage=usage(2)) + DONE,
    ],
    "four-a-chunk": [
        HEAD + four_tokens("a b c d"),
        PAUSE_S,
        four_tokens("e f g h"),
        PAUSE_S,
        four_tokens("i j k l") + last(12),
    ],
    "cut-words": [HEAD + word("unbe"), PAUSE_S / 2, word("lievab"), PAUSE_S / 2, word("le") + last(7)],
    "long": [HEAD, *[word(LONG_TEXT)] * LONG_EVENTS, last(LONG_EVENTS)],
    "one-token": [HEAD + word("yes") + last(1)],
    "stops-early": [HEAD + word("a") + word("b") + word("c") + last(3)],
    "cached": [HEAD + word("a") + last(1, prompt_tokens_details={"cached_tokens": 12})],
    "untold-cache": [HEAD + word("a") + last(1)],
    "gzip": [
        _STREAM_HEAD % b"Content-Encoding: gzip\r\n" + chunk(gzip.compress(b"data: [DONE]\n\n")) + END,
    ],
    "no-usage": [plain({"choices": [_MESSAGE]})],
}


class Adversary:
    """Counts what it was asked; with `hold`, answers nothing before so many requests are in flight."""

    def __init__(self, hold: int = 0) -> None:
        self._hold = hold
        self._enough = asyncio.Event()
        self.heads: list[bytes] = []
        self.in_flight = 0
        self.most_in_flight = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
                model = json.loads(await reader.readexactly(length))["model"]
                self.heads.append(head)
                await self._answer(SCRIPTS[model], writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, script: Script, writer: asyncio.StreamWriter) -> None:
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        if self.in_flight >= self._hold:
            self._enough.set()
        await self._enough.wait()
        for step in script:
            if isinstance(step, bytes):
                writer.write(step)
                await writer.drain()
            else:
                await asyncio.sleep(step)
        self.in_flight -= 1


@asynccontextmanager
async def listening(adversary: Adversary) -> AsyncIterator[Target]:
    """The server on loopback."""
    server = await asyncio.start_server(adversary.handle, "127.0.0.1", 0, backlog=512)
    try:
        yield Target(host="127.0.0.1", port=server.sockets[0].getsockname()[1])
    finally:
        server.close()
        await server.wait_closed()


def asking(
    behaviour: str, *, stream: bool = True, asked_tokens: int | None = None
) -> Callable[[Target], WireRequest]:
    """A request that gets this behaviour."""

    def build(target: Target) -> WireRequest:
        body = json.dumps({"model": behaviour, "stream": stream}).encode()
        return WireRequest(http_request(target, "POST", "/v1/chat/completions", body), stream, asked_tokens)

    return build
