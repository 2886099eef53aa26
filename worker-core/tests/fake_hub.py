"""A Hugging Face Hub of one model on a real socket, as its HTTP API is documented.

    GET /api/models/<name>/revision/<revision>?blobs=true   names, sizes, checksums, the commit
    GET /<name>/resolve/<commit>/<file>                     the file, with Range; large ones live elsewhere

Large files are those of Git LFS: they have a SHA-256, and a redirect leads to another host, which must never
see the token.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

NAME = "acme/tiny"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
SIGNATURE = "Signature=hush-hush"


def git_blob(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


@dataclass
class Hub:
    """What it has, how it misbehaves, and what it was asked."""

    files: dict[str, bytes]
    large: tuple[str, ...] = ("model.safetensors",)
    commit: str = COMMIT
    token: str | None = None
    """Asked for if set."""
    served: dict[str, bytes] = field(default_factory=dict)
    """Other bytes than those that the checksums are of."""
    stalls_after: int | None = None
    """Of a large file: then nothing comes any more."""
    ranges: bool = True
    port: int = 0
    log: list[tuple[str, str, str | None, str | None]] = field(default_factory=list)
    """Host, path, `Range` and `Authorization` of each request."""
    resume: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def downloads(self) -> list[str]:
        return [path.split(f"/{self.commit}/")[1] for _, path, *_ in self.log if f"/{self.commit}/" in path]

    def listing(self) -> dict[str, object]:
        siblings = []
        for name, data in self.files.items():
            entry: dict[str, object] = {"rfilename": name, "size": len(data), "blobId": git_blob(data)}
            if name in self.large:
                sha256 = hashlib.sha256(data).hexdigest()
                entry["lfs"] = {"sha256": sha256, "size": len(data), "pointerSize": 134}
            siblings.append(entry)
        return {"id": NAME, "modelId": NAME, "sha": self.commit, "siblings": siblings, "tags": []}


@contextmanager
def running_hub(hub: Hub) -> Iterator[Hub]:
    """Serve it from threads of this process."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Quiet."""

        def do_GET(self) -> None:
            host = (self.headers["Host"] or "").partition(":")[0]
            path = unquote(urlsplit(self.path).path)
            hub.log.append((host, path, self.headers["Range"], self.headers["Authorization"]))
            if host != "localhost" and hub.token and self.headers["Authorization"] != f"Bearer {hub.token}":
                self.answer(401, b"{}", {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access restricted"})
            elif path.startswith(f"/api/models/{NAME}/revision/") or path == f"/api/models/{NAME}":
                self.list(path.partition("/revision/")[2])
            elif path.startswith(f"/{NAME}/resolve/{hub.commit}/"):
                self.give(path.partition(f"/{hub.commit}/")[2], host)
            else:
                self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})

        do_HEAD = do_GET

        def list(self, revision: str) -> None:
            if revision not in ("", "main", hub.commit):
                self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
                return
            body = json.dumps(hub.listing()).encode()
            self.answer(200, body, {"Content-Type": "application/json"})

        def give(self, name: str, host: str) -> None:
            data = hub.served.get(name, hub.files[name])
            sha256 = hashlib.sha256(hub.files[name]).hexdigest()
            headers = {"ETag": f'"{git_blob(hub.files[name])}"', "X-Repo-Commit": hub.commit}
            if name in hub.large and host != "localhost":
                link = f"http://localhost:{hub.port}{self.path}?{SIGNATURE}"
                linked = {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(len(data)), "Location": link}
                self.answer(302, b"", {**headers, **linked})
                return
            first = 0
            if hub.ranges and (asked := self.headers["Range"]):
                first = int(asked.removeprefix("bytes=").partition("-")[0])
                headers["Content-Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
            self.answer(206 if "Content-Range" in headers else 200, data[first:], headers)

        def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "HEAD":
                return
            cut = hub.stalls_after
            if cut is None or len(body) <= cut:
                self.wfile.write(body)
                return
            self.wfile.write(body[:cut])
            self.wfile.flush()
            hub.resume.wait(30)
            self.close_connection = True

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A client that was killed."""

    with Server(("127.0.0.1", 0), Handler) as server:
        hub.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield hub
        finally:
            hub.resume.set()
            server.shutdown()
            thread.join()
