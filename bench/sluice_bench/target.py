"""Where requests go, and a request as bytes.

Knows nothing of when a request is sent or of what it asks for.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

import msgspec

from sluice_bench.records import Phase


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A server to load."""

    host: str
    port: int
    tls: bool = False
    prefix: str = ""
    """Path in front of `/v1`, without a trailing slash."""

    @classmethod
    def parse(cls, url: str) -> Target:
        """From `http://host:port[/prefix]`; a trailing `/v1` is dropped. Raises `ValueError`."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is not a server address; use for example http://127.0.0.1:8000")
        tls = parts.scheme == "https"
        prefix = parts.path.rstrip("/").removesuffix("/v1")
        return cls(host=parts.hostname, port=parts.port or (443 if tls else 80), tls=tls, prefix=prefix)

    @property
    def url(self) -> str:
        """As `parse` takes it."""
        return f"{'https' if self.tls else 'http'}://{self.authority}{self.prefix}"

    @property
    def authority(self) -> str:
        """`host:port` for the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class WireRequest(msgspec.Struct, frozen=True):
    """One request, ready for the socket."""

    wire: bytes
    stream: bool
    asked_tokens: int | None = None
    """Its `max_tokens`."""
    item: str = ""
    """Id of the workload's item it asks."""
    phase: Phase = "measured"


def http_request(
    target: Target, method: str, path: str, body: bytes = b"", headers: Sequence[tuple[str, str]] = ()
) -> bytes:
    """The bytes of one HTTP/1.1 request with keep-alive."""
    lines = [f"{method} {target.prefix}{path} HTTP/1.1", f"Host: {target.authority}"]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
