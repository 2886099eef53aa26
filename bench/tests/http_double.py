"""A real HTTP server in a thread whose answers are a function, for commands, which run their own loop."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Json = dict[str, Any]


class Events:
    """A streamed answer: events are sent as they are, numbers are seconds of silence."""

    def __init__(self, steps: Sequence[Json | float]) -> None:
        self.steps = steps


Reply = Json | Events | tuple[int, Json]
"""A plain answer, a stream, or a refusal with its status."""

Answering = Callable[[str, Json], Reply]
"""From a path and a body; a GET has an empty one."""


@contextmanager
def serving(answering: Answering) -> Iterator[str]:
    """The address of a server that answers so."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # or each small write waits for an acknowledgement

        def do_GET(self) -> None:
            self._reply(answering(self.path, {}))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            self._reply(answering(self.path, json.loads(body)))

        def _reply(self, reply: Reply) -> None:
            if isinstance(reply, Events):
                self._stream(reply)
                return
            status, answer = reply if isinstance(reply, tuple) else (200, reply)
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _stream(self, events: Events) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for step in events.steps:
                if isinstance(step, dict):
                    self._chunk(b"data: " + json.dumps(step).encode() + b"\n\n")
                else:
                    time.sleep(step)
            self._chunk(b"data: [DONE]\n\n")
            self.wfile.write(b"0\r\n\r\n")

        def _chunk(self, data: bytes) -> None:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
            self.wfile.flush()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
