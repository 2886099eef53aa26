"""The listening sockets.

One process has one. Several have one each, all on the same port: the kernel deals new connections out evenly
(`SO_REUSEPORT`), where processes that share a socket would race for them, and keep for life what they got.
The supervisor keeps every socket open while its process is replaced: connections that come meanwhile wait,
none is refused. Where the kernel does not deal out (anything but Linux), the processes share one socket.
Source: socket(7), SO_REUSEPORT.
"""

from __future__ import annotations

import errno
import socket
import sys

from sluice_gateway.config import ConfigError
from sluice_gateway.settings import Server, Settings

_BACKLOG = 2048
_DEALS_OUT = sys.platform == "linux"


def listen(settings: Settings) -> socket.socket:
    """The listening socket, before anything else is started. Raises `ConfigError` in one clear sentence."""
    return _listening(settings.server, shares_port=False)


def listen_for_each(settings: Settings, count: int) -> list[socket.socket]:
    """The listening sockets of so many processes. Raises `ConfigError` in one clear sentence.

    The first one is opened without sharing: a port that another program has is in use, also when that program
    would share it.
    """
    if not _DEALS_OUT:
        return [listen(settings)] * count
    _listening(settings.server, shares_port=False).close()
    return [listen_again(settings.server) for _ in range(count)]


def listen_again(server: Server) -> socket.socket:
    """One more socket on a port that is ours already."""
    return _listening(server, shares_port=_DEALS_OUT)


def url_of(server: Server) -> str:
    """Where a browser on this machine finds the gateway, without a slash at the end."""
    host = f"[{server.host}]" if ":" in server.host else server.host
    return f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{server.port}"


def _listening(server: Server, *, shares_port: bool) -> socket.socket:
    host, port = server.host, server.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol must be named: only then does asyncio switch Nagle's algorithm off, which costs 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shares_port:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        _limit_unread_data(listener, server.write_timeout_s)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError(_why_not(host, port, error)) from error
    return listener


def _why_not(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        other = f"sluice serve --port {port + 10}"
        return f"Port {port} is in use; stop what listens there, or choose another: {other}"
    return f"Cannot listen on {host} port {port}: {error.strerror or error}."


def _limit_unread_data(listener: socket.socket, limit_s: float) -> None:
    """Have the kernel drop clients that read nothing, which no ASGI application can; accepted sockets
    inherit it."""
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    if option is not None:
        listener.setsockopt(socket.IPPROTO_TCP, option, int(2 * limit_s * 1000))
