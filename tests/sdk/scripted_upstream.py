"""An engine that answers with exact payloads, for what no bundled engine can do, and for its failures.

It is a capable model under the name `scripted`: it calls tools, keeps to schemas, embeds, ranks, hears,
speaks and draws. Under the names in `FAULTS` it fails, each in its own way. What it was asked is in `calls`,
and at `GET /calls` for test programs outside this process, which POST to
`/go-on` when an answer that waits for that may go on.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from . import payloads

MODEL = "scripted"
STATUSES = (400, 401, 404, 409, 413, 422, 429, 500, 502, 503, 504)
PATIENCE_S = 20.0
"""How long a scripted answer waits for its client to leave. Never a measure of speed."""


@dataclass
class Call:
    """One request that the engine got."""

    path: str
    headers: dict[str, str]
    body: bytes
    left: threading.Event = field(default_factory=threading.Event)
    """Set when the gateway has closed the connection under a running answer."""
    may_go_on: threading.Event = field(default_factory=threading.Event)
    """Set when an answer that waits in its middle need wait no longer."""

    @property
    def fields(self) -> Any:
        """The body, when it is JSON."""
        return json.loads(self.body)

    @property
    def model(self) -> str:
        """Whom the request is for; uploads have no such field in JSON."""
        return str(self.fields["model"]) if self.body.startswith(b"{") else MODEL


class Answering(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: ScriptedServer

    def do_GET(self) -> None:
        """The model list, or the calls so far."""
        if self.path == "/calls":
            self.json(200, [{"path": c.path, "model": c.model, "left": c.left.is_set()} for c in self.calls])
        else:
            self.json(200, {"object": "list", "data": [{"id": MODEL, "object": "model"}]})

    def do_POST(self) -> None:
        """An answer by path, or by the name of a fault."""
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        if self.path == "/go-on":
            self.server.go_on()
            self.json(200, {})
            return
        call = Call(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
        self.calls.append(call)
        answer = FAULTS.get(call.model) or ANSWERS[call.path]
        answer(self, call)

    @property
    def calls(self) -> list[Call]:
        """Of the whole engine."""
        return self.server.calls

    def json(self, status: int, value: Any, **headers: str) -> None:
        """A whole answer."""
        self.whole(status, json.dumps(value).encode(), **{"content-type": "application/json", **headers})

    def whole(self, status: int, body: bytes, **headers: str) -> None:
        """The same of any kind."""
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def begin_events(self) -> None:
        """The head of a stream."""
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()

    def event(self, data: Any) -> None:
        """One event."""
        text = data if isinstance(data, str) else json.dumps(data)
        piece = f"data: {text}\n\n".encode()
        self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))

    def events(self, *events: Any) -> None:
        """A whole stream."""
        self.begin_events()
        for event in (*events, "[DONE]"):
            self.event(event)
        self.wfile.write(b"0\r\n\r\n")

    def wait_until_left(self, call: Call) -> None:
        """Answer nothing more until the gateway has closed the connection."""
        readable, _, _ = select.select([self.connection], [], [], PATIENCE_S)
        if readable and not self.connection.recv(1):
            call.left.set()
        self.close_connection = True

    def reset(self) -> None:
        """Lose the connection."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class ScriptedServer(ThreadingHTTPServer):
    """The engine, one thread a connection."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.calls: list[Call] = []

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A gateway that has gone is no error of the engine's."""

    def go_on(self) -> None:
        """Let the answers go on that wait for their clients to have seen, or done, something."""
        for call in self.calls:
            call.may_go_on.set()

    def last(self, path: str, model: str = MODEL) -> Call:
        """The latest call of a path."""
        return [call for call in self.calls if (call.path, call.model) == (path, model)][-1]


def wait_for(condition: Callable[[], bool], what: str, within_s: float = PATIENCE_S) -> None:
    """Return once `condition` holds; fail the test if it never does."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not after {within_s:g} s"
        time.sleep(0.01)


Answer = Callable[[Answering, Call], None]


def _chat(to: Answering, call: Call) -> None:
    """Calls the tool once it is offered, tells its result, keeps to a schema, or says hello."""
    fields = call.fields
    if fields["messages"][-1]["role"] == "tool":
        told: dict[str, Any] = {"content": payloads.FORECAST}
    elif fields.get("tools"):
        told = {"tool_calls": payloads.TOOL_CALLS}
    elif fields.get("response_format"):
        told = {"content": payloads.STRUCTURED}
    else:
        told = {"content": "Hello there."}
    if fields.get("stream"):
        usage = bool((fields.get("stream_options") or {}).get("include_usage"))
        to.events(*payloads.chunks(usage=usage, **told))
    else:
        to.json(200, payloads.completion(**told))


def _embed(to: Answering, call: Call) -> None:
    fields = call.fields
    count = len(fields["input"]) if isinstance(fields["input"], list) else 1
    to.json(200, payloads.embeddings(count, fields.get("encoding_format", "float")))


def _rank(to: Answering, call: Call) -> None:
    to.json(200, payloads.RANKED)


def _score(to: Answering, call: Call) -> None:
    to.json(200, payloads.SCORED)


def _transcribe(to: Answering, call: Call) -> None:
    to.json(200, payloads.TRANSCRIPTION)


def _speak(to: Answering, call: Call) -> None:
    to.whole(200, payloads.SOUND, **{"content-type": "audio/mpeg"})


def _draw(to: Answering, call: Call) -> None:
    if call.body.startswith(b"{") and call.fields.get("stream"):
        to.begin_events()
        for name, event in payloads.IMAGE_EVENTS:
            piece = f"event: {name}\ndata: {json.dumps(event)}\n\n".encode()
            to.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        to.wfile.write(b"0\r\n\r\n")
    else:
        to.json(200, payloads.IMAGES)


ANSWERS: dict[str, Answer] = {
    "/v1/chat/completions": _chat,
    "/v1/embeddings": _embed,
    **dict.fromkeys(("/v1/rerank", "/v2/rerank", "/rerank"), _rank),
    **dict.fromkeys(("/v1/score", "/score"), _score),
    "/v1/audio/speech": _speak,
    "/v1/audio/transcriptions": _transcribe,
    "/v1/audio/translations": _transcribe,
    "/v1/images/generations": _draw,
    "/v1/images/edits": _draw,
    "/v1/images/variations": _draw,
    "/tokenize": lambda to, call: to.json(200, {"count": 17, "max_model_len": 4096, "tokens": [1] * 17}),
}


def _refuses(status: int) -> Answer:
    def answer(to: Answering, call: Call) -> None:
        to.json(status, payloads.failure(status), **{"retry-after": "7"})

    return answer


def _recovers(to: Answering, call: Call) -> None:
    """Fails the first of two requests."""
    earlier = [c for c in to.calls if c.model == call.model]
    if len(earlier) % 2:
        to.json(500, payloads.failure(500))
    else:
        _chat(to, call)


def _breaks(to: Answering, call: Call) -> None:
    """An error event in the middle of a stream, once its client has seen the first half."""
    to.begin_events()
    to.event(payloads.chunk({"role": "assistant", "content": ""}))
    to.event(payloads.chunk({"content": "half "}))
    call.may_go_on.wait(PATIENCE_S)
    to.event({"error": {"message": "The engine lost the plot.", "type": "server_error", "code": 500}})
    to.wfile.write(b"0\r\n\r\n")


def _cuts(to: Answering, call: Call) -> None:
    """The connection is lost there."""
    to.begin_events()
    to.event(payloads.chunk({"role": "assistant", "content": ""}))
    to.event(payloads.chunk({"content": "half "}))
    call.may_go_on.wait(PATIENCE_S)
    to.reset()


def _pauses(to: Answering, call: Call) -> None:
    """Says one word and then nothing, until nobody listens."""
    to.begin_events()
    to.event(payloads.chunk({"role": "assistant", "content": ""}))
    to.event(payloads.chunk({"content": "Wait"}))
    to.wait_until_left(call)


def _holds(to: Answering, call: Call) -> None:
    """Answers only when it is told to."""
    call.may_go_on.wait(PATIENCE_S)
    _chat(to, call)


def _never_answers(to: Answering, call: Call) -> None:
    to.wait_until_left(call)


FAULTS: dict[str, Answer] = {
    **{f"status-{status}": _refuses(status) for status in STATUSES},
    "recovers": _recovers,
    "breaks": _breaks,
    "cuts": _cuts,
    "pauses": _pauses,
    "holds": _holds,
    "never": _never_answers,
}
