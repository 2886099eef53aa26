"""A server that answers OpenAI requests at next to no cost: what is left in a measurement is everyone else's.

It stands behind a gateway whose overhead is measured, and beside a load client whose own error is measured.
Answers are built once, before the first request. A plain answer is about 1.4 KB of JSON; a stream is a role
event, N text events of one token each, a finish event, the usage event when it was asked for, and `[DONE]`,
each text event as its own write when paced. It reads no JSON: `"stream":true` is looked for as bytes.

`python -m sluice_bench.null_server PORT` is `sluice-bench null-server` for programs: every measured
run starts one, and need not wait until all of `sluice-bench` is loaded.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import cast

import msgspec

from sluice_bench.load_run import new_event_loop

_CREATED = 1_700_000_000
_HEAD_LIMIT = 64 * 1024
_BACKLOG = 4096
"""Connections that may wait to be accepted; a lower number costs a burst of new ones a second's retry."""
_PLACE_OF_STAMPS = "<stamps>"


class NullSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the null server answers."""

    chunks: int = 100
    """Text events in a stream; each is one token."""
    pace_ms: float = 0.0
    """Between two text events. At 0 the whole stream is one write, so readers see few large reads."""
    first_ms: float = 0.0
    """Before the first text event, or before a plain answer."""
    json_bytes: int = 1400
    """Length of a plain answer's body, at least about 400."""
    capacity: int | None = None
    """Answers in progress at once; further requests wait, first come first served. `None`: any number."""
    model: str = "null"
    stamps: bool = False
    """The text of a paced event is when it was due and when it was sent: `DUE SENT`, nanoseconds of the
    machine's monotonic clock. A reader on the same machine can tell its delay."""
    stall_at_s: float = 0.0
    """After the first generating request, when the whole server stands still once."""
    stall_s: float = 0.0
    """For so long; 0: never. The kernel takes connections and requests meanwhile, as for any busy server."""


class Answers(msgspec.Struct, frozen=True):
    """Everything it may send, framed."""

    plain: bytes
    head: bytes
    """Response head of a stream, with the role event."""
    texts: tuple[bytes, ...]
    stamped: tuple[bytes, bytes]
    """What stands before and after the stamps of a stamped text event."""
    finish: bytes
    usage: bytes
    done: bytes
    models: bytes
    health: bytes
    not_found: bytes


def build_answers(settings: NullSettings) -> Answers:
    """All answers as wire bytes."""
    texts = tuple(
        _chunk(_event(settings, delta={"content": f" t{index:03d}"})) for index in range(settings.chunks)
    )
    before, after = _event(settings, delta={"content": _PLACE_OF_STAMPS}).split(_PLACE_OF_STAMPS.encode())
    stream_head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    model_list = {"object": "list", "data": [{"id": settings.model, "object": "model", "owned_by": "null"}]}
    error = {"message": "No such path.", "type": "invalid_request_error", "param": None, "code": None}
    return Answers(
        plain=_json_response(200, _plain_body(settings)),
        head=stream_head + _chunk(_event(settings, delta={"role": "assistant", "content": ""})),
        texts=texts,
        stamped=(before, after),
        finish=_chunk(_event(settings, delta={}, finish_reason="stop")),
        usage=_chunk(_usage_event(settings)),
        done=_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n",
        models=_json_response(200, msgspec.json.encode(model_list)),
        health=_json_response(200, b'{"status":"ok"}'),
        not_found=_json_response(404, msgspec.json.encode({"error": error})),
    )


def _usage(settings: NullSettings) -> dict[str, int]:
    return {
        "prompt_tokens": 16,
        "completion_tokens": settings.chunks,
        "total_tokens": 16 + settings.chunks,
    }


def _plain_body(settings: NullSettings) -> bytes:
    def body(text: str) -> bytes:
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        return msgspec.json.encode(
            {
                "id": "chatcmpl-null",
                "object": "chat.completion",
                "created": _CREATED,
                "model": settings.model,
                "choices": [choice],
                "usage": _usage(settings),
            }
        )

    return body("x" * max(1, settings.json_bytes - len(body(""))))


def _event(settings: NullSettings, delta: dict[str, str], finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    return _sse(settings, [choice])


def _usage_event(settings: NullSettings) -> bytes:
    return _sse(settings, [], usage=_usage(settings))


def _sse(settings: NullSettings, choices: list[dict[str, object]], **more: object) -> bytes:
    event = {
        "id": "chatcmpl-null",
        "object": "chat.completion.chunk",
        "created": _CREATED,
        "model": settings.model,
        "choices": choices,
        **more,
    }
    return b"data: " + msgspec.json.encode(event) + b"\n\n"


def _chunk(payload: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def _json_response(status: int, body: bytes) -> bytes:
    reason = {200: b"OK", 404: b"Not Found"}[status]
    head = b"HTTP/1.1 %d %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % (status, reason, len(body)) + body


class Stall:
    """Stops the whole event loop once, at a time after the first request."""

    def __init__(self, settings: NullSettings, on_stall: Callable[[int, int], None]) -> None:
        self._at_s = settings.stall_at_s
        self._duration_s = settings.stall_s
        self._on_stall = on_stall
        self._armed = settings.stall_s > 0

    def request_came(self) -> None:
        """The first one starts the time."""
        if self._armed:
            self._armed = False
            asyncio.get_running_loop().call_later(self._at_s, self._stand_still)

    def _stand_still(self) -> None:
        start_ns = time.perf_counter_ns()
        time.sleep(self._duration_s)
        self._on_stall(start_ns, time.perf_counter_ns())


class Places:
    """Who may be answered now: at most `capacity` at once, the others in the order in which they came."""

    def __init__(self, capacity: int | None) -> None:
        self._free = capacity
        self._waiting: deque[Callable[[], None]] = deque()

    def enter(self, begin: Callable[[], None]) -> None:
        """Call `begin` when there is a place, at once if there is one now."""
        if self._free == 0:
            self._waiting.append(begin)
            return
        if self._free is not None:
            self._free -= 1
        begin()

    def leave(self) -> None:
        """Whoever had begun has ended; the next one begins."""
        if self._waiting:
            self._waiting.popleft()()
        elif self._free is not None:
            self._free += 1


class NullProtocol(asyncio.Protocol):
    """One connection; answers requests one after another."""

    def __init__(self, settings: NullSettings, answers: Answers, stall: Stall, places: Places) -> None:
        self._settings = settings
        self._places = places
        self._has_place = False
        self._answers = answers
        self._stall = stall
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._timer: asyncio.TimerHandle | None = None
        self._busy = False
        self._started_ns = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop a stream that nobody reads."""
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        self._leave()

    def data_received(self, data: bytes) -> None:
        """Answer each complete request; a next one waits for the answer in progress."""
        self._buffer = self._buffer + data if self._buffer else data
        self._next_request()

    def _next_request(self) -> None:
        while self._buffer and not self._busy:
            head_end = self._buffer.find(b"\r\n\r\n")
            if head_end < 0:
                if len(self._buffer) > _HEAD_LIMIT and self._transport is not None:
                    self._transport.abort()
                return
            head = self._buffer[:head_end]
            end = head_end + 4 + _content_length(head)
            if len(self._buffer) < end:
                return
            body, self._buffer = self._buffer[head_end + 4 : end], self._buffer[end:]
            self._busy = True
            self._answer(head.split(b" ", 2)[1], body)

    def _answer(self, path: bytes, body: bytes) -> None:
        if path.endswith((b"/chat/completions", b"/completions")):
            self._stall.request_came()
            streamed = b'"stream":true' in body or b'"stream": true' in body
            self._places.enter(lambda: self._begin(body, streamed))
        elif path.endswith(b"/models"):
            self._send_all(self._answers.models)
        elif path in (b"/health", b"/ready"):
            self._send_all(self._answers.health)
        else:
            self._send_all(self._answers.not_found)

    def _begin(self, body: bytes, streamed: bool) -> None:
        if self._transport is None:  # left while it waited
            self._places.leave()
            return
        self._has_place = True
        self._after(self._settings.first_ms, lambda: self._stream(body) if streamed else self._plain())

    def _leave(self) -> None:
        if self._has_place:
            self._has_place = False
            self._places.leave()

    def _plain(self) -> None:
        self._send_all(self._answers.plain)

    def _stream(self, body: bytes) -> None:
        answers = self._answers
        wants_usage = b'"include_usage":true' in body or b'"include_usage": true' in body
        tail = answers.finish + (answers.usage if wants_usage else b"") + answers.done
        if self._settings.pace_ms == 0:
            self._send_all(answers.head + b"".join(answers.texts) + tail)
            return
        self._write(answers.head)
        self._started_ns = time.perf_counter_ns()
        self._paced(0, self._loop.time(), tail)

    def _paced(self, index: int, due: float, tail: bytes) -> None:
        """Text events at fixed times from the first, so that a late timer does not slow the stream down."""
        if index == len(self._answers.texts):
            self._send_all(tail)
            return
        self._write(self._stamped(index) if self._settings.stamps else self._answers.texts[index])
        due += self._settings.pace_ms / 1000
        self._timer = self._loop.call_at(due, self._paced, index + 1, due, tail)

    def _stamped(self, index: int) -> bytes:
        due_ns = self._started_ns + round(index * self._settings.pace_ms * 1e6)
        before, after = self._answers.stamped
        return _chunk(b"%b%d %d%b" % (before, due_ns, time.perf_counter_ns(), after))

    def _after(self, delay_ms: float, action: Callable[[], None]) -> None:
        if delay_ms == 0:
            action()
        else:
            self._timer = self._loop.call_later(delay_ms / 1000, action)

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def _send_all(self, data: bytes) -> None:
        self._write(data)
        self._busy = False
        self._leave()
        self._loop.call_soon(self._next_request)


def _content_length(head: bytes) -> int:
    lower = head.lower()
    at = lower.find(b"\r\ncontent-length:")
    if at < 0:
        return 0
    return int(lower[at + 17 :].split(b"\r\n", 1)[0])


def _untold(start_ns: int, end_ns: int) -> None:
    """Nobody wants to know of a stall."""


async def start_null_server(
    settings: NullSettings, host: str, port: int, on_stall: Callable[[int, int], None] = _untold
) -> asyncio.Server:
    """Listen; port 0 takes a free one. `on_stall` is told when a stall began and ended, in ns of the
    monotonic clock. The caller closes the server."""
    answers, stall, places = build_answers(settings), Stall(settings, on_stall), Places(settings.capacity)
    loop = asyncio.get_running_loop()
    return await loop.create_server(
        lambda: NullProtocol(settings, answers, stall, places), host, port, backlog=_BACKLOG
    )


def serve(
    settings: NullSettings,
    host: str,
    port: int,
    on_ready: Callable[[int], None],
    on_stall: Callable[[int, int], None] = _untold,
) -> None:
    """Serve until SIGINT or SIGTERM, then drop every connection; `on_ready` is told the port."""

    async def main() -> None:
        server = await start_null_server(settings, host, port, on_stall)
        stopped = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        on_ready(server.sockets[0].getsockname()[1])
        await stopped.wait()
        server.close()

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(main())


def settings_of(options: Sequence[str]) -> NullSettings:
    """Of `--first-ms 20 --stamps true …`, each field of `NullSettings` by its name and with a value.

    Raises `ValueError` for an option without a value, and `msgspec.ValidationError`, one of its kind, for one
    that does not exist or has a value of another type.
    """
    names = (option.removeprefix("--").replace("-", "_") for option in options[::2])
    return msgspec.convert(dict(zip(names, options[1::2], strict=True)), NullSettings, strict=False)


def stall_line(start_ns: int, end_ns: int) -> str:
    """What is said of a stall."""
    return f"Stood still from {start_ns} to {end_ns} ns."


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Entry point: a port of loopback, then options."""
    serve(
        settings_of(sys.argv[2:]),
        "127.0.0.1",
        int(sys.argv[1]),
        on_ready=lambda port: _say(f"Null server on port {port}"),
        on_stall=lambda start, end: _say(stall_line(start, end)),
    )


if __name__ == "__main__":
    main()
