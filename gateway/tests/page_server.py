"""A server with fixed pages in a thread of its own, for commands that run an event loop themselves."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Pages = Mapping[str, tuple[int, str]]


@contextmanager
def page_server(pages: Pages, *, key: str | None = None) -> Iterator[str]:
    """Its base URL. With a `key`, whoever does not send it as a bearer token gets 401."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status, body = pages.get(self.path, (404, '{"detail": "Not Found"}'))
            if key is not None and self.headers.get("authorization") != f"Bearer {key}":
                status, body = 401, '{"error": "Unauthorized"}'
            self.send_response(status)
            self.send_header("content-length", str(len(body.encode())))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
