"""Where a base URL points: a TCP or TLS address, or a unix socket."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, unquote, urlsplit

import msgspec

from sluice_engines.transport import ConnectFailed

_DEFAULT_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[A-Za-z0-9._:%-]+")
_HELP = "use http://host:port, https://host:port or http+unix:///path.sock"


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """One engine's address. Equal origins share idle connections."""

    host: str
    """Name or literal to connect to, and the name that a TLS certificate must show; empty for a socket."""
    port: int
    tls: bool
    socket_path: str | None
    """Path of a unix socket; `None` for TCP."""
    authority: str
    """Value of the `Host` header."""


def parse_origin(base_url: str) -> Origin:
    """The origin of `base_url`. Raises `ConnectFailed` with what to write instead when it is not usable."""
    try:
        parts = urlsplit(base_url)
        origin = _unix_origin(parts) if parts.scheme == "http+unix" else _tcp_origin(parts)
    except ValueError as error:
        raise ConnectFailed(f"upstream URL {base_url!r} is not valid ({error}): {_HELP}") from error
    if parts.query or parts.fragment:
        raise ConnectFailed(f"upstream URL {base_url!r} may not carry a query or a fragment: {_HELP}")
    return origin


def _unix_origin(parts: SplitResult) -> Origin:
    if parts.netloc or not parts.path.startswith("/") or "\0" in parts.path:
        raise ValueError("the socket's absolute path is missing")
    return Origin(host="", port=0, tls=False, socket_path=unquote(parts.path), authority="localhost")


def _tcp_origin(parts: SplitResult) -> Origin:
    if parts.scheme not in _DEFAULT_PORTS:
        raise ValueError(f"scheme {parts.scheme!r} is not supported")
    if parts.path not in ("", "/") or "@" in parts.netloc:
        raise ValueError("it may hold neither a path nor credentials")
    if not parts.hostname or not _HOST.fullmatch(parts.hostname):
        raise ValueError("the host is missing or holds characters that are not ASCII")
    return Origin(
        host=parts.hostname,
        port=parts.port or _DEFAULT_PORTS[parts.scheme],
        tls=parts.scheme == "https",
        socket_path=None,
        authority=parts.netloc,
    )
