"""An engine, or a gateway before several, in a thread: its abilities are chosen, what it is asked is kept."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from sluice_bench.target import Target

CALL = {"id": "call_7", "type": "function", "function": {"name": "look", "arguments": "{}"}}


class FakeEngine:
    """Answers in OpenAI's shapes: three pieces of text, with pauses between them."""

    def __init__(self, **abilities: Any) -> None:
        self.models: list[str] = abilities.get("models", ["small"])
        self.mute: list[str] = abilities.get("mute", [])
        """Models that do not chat."""
        self.calls: bool = abilities.get("calls", False)
        self.embeds: str = abilities.get("embeds", "")
        """The model that makes embeddings."""
        self.backends: dict[str, str] = abilities.get("backends", {})
        """Name, and the only model that it serves; '' serves none now."""
        self.quants: dict[str, str] = abilities.get("quants", {})
        self.says: str = abilities.get("says", "")
        """Who answers, whoever is asked."""
        self.pause_s: float = abilities.get("pause_s", 0.0)
        self.pieces: int = abilities.get("pieces", 3)
        self.key: str = abilities.get("key", "")
        self.closes: bool = abilities.get("closes", False)
        self.asked: list[tuple[str, dict[str, str], Any]] = []
        self.connections = 0
        self.left = 0

    def answer(self, path: str, headers: dict[str, str], body: Any) -> tuple[int, Any]:
        """Status, and a JSON body or a list of events."""
        self.asked.append((path, headers, body))
        if self.key and headers.get("authorization") != f"Bearer {self.key}":
            return 401, refusal("invalid_api_key", "No key.")
        if path == "/v1/models":
            return 200, {"data": [{"id": name} for name in self.models]}
        if path == "/v1/embeddings":
            known = body["model"] == self.embeds
            return (200, {"data": [{"embedding": [0.5]}]}) if known else (400, refusal(None, "No vectors."))
        return self._chat(headers, body)

    def _chat(self, headers: dict[str, str], body: Any) -> tuple[int, Any]:
        for header, known, code in (
            ("x-backend", self.backends, "unknown_backend"),
            ("x-quant", self.quants, "unknown_quant"),
        ):
            value = headers.get(header)
            if known and value is not None:
                if value not in known:
                    return 400, refusal(code, f"Not '{value}'; valid ones are: {', '.join(known)}.")
                if known[value] != body["model"]:
                    return 503, refusal("engine_unavailable", "Not there.")
        if body["model"] in self.mute:
            return 400, refusal(None, f"{body['model']} does not chat.")
        if body.get("tool_choice") == "required" and self.calls:
            return 200, {"choices": [{"message": {"role": "assistant", "tool_calls": [CALL]}}]}
        if not body.get("stream"):
            return 200, {"choices": [{"message": {"role": "assistant", "content": "Hello"}}]}
        return 200, ["role", *(["text"] * self.pieces)]


def refusal(code: str | None, message: str) -> dict[str, Any]:
    return {"error": {"message": message, "code": code}}


def event(delta: dict[str, str]) -> bytes:
    return b"data: " + json.dumps({"choices": [{"index": 0, "delta": delta}]}).encode() + b"\n\n"


def handler_of(engine: FakeEngine) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def setup(self) -> None:
            engine.connections += 1
            super().setup()

        def log_message(self, *_: object) -> None:
            """Nothing is logged."""

        def do_GET(self) -> None:
            self._play(None)

        def do_POST(self) -> None:
            self._play(json.loads(self.rfile.read(int(self.headers["content-length"]))))

        def _play(self, body: Any) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, answer = engine.answer(self.path, headers, body)
            try:
                self._stream(answer) if isinstance(answer, list) else self._plain(status, answer)
            except (BrokenPipeError, ConnectionResetError):
                engine.left += 1
                self.close_connection = True

        def _plain(self, status: int, answer: Any) -> None:
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            if engine.closes:
                self.send_header("connection", "close")
            self.end_headers()
            self.wfile.write(data)

        def _stream(self, kinds: list[str]) -> None:
            asked = engine.says or self.headers.get("x-backend", "")
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.send_header("x-sluice-backend", asked)
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            for kind in kinds:
                self._chunk(
                    event({"role": "assistant", "content": ""} if kind == "role" else {"content": "Hi "})
                )
                time.sleep(engine.pause_s)
            self._chunk(b'data: {"choices": [], "usage": {"prompt_tokens": 4, "completion_tokens": 3}}\n\n')
            self._chunk(b"data: [DONE]\n\n")
            self.wfile.write(b"0\r\n\r\n")

        def _chunk(self, data: bytes) -> None:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self.wfile.flush()

    return Handler


@pytest.fixture
def engine() -> Iterator[Callable[..., tuple[FakeEngine, Target]]]:
    """Start one with the abilities given."""
    servers: list[ThreadingHTTPServer] = []

    def start(tls: ssl.SSLContext | None = None, **abilities: Any) -> tuple[FakeEngine, Target]:
        fake = FakeEngine(**abilities)
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(fake))
        server.block_on_close = False
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return fake, Target(host="127.0.0.1", port=server.server_address[1], tls=tls is not None)

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
