"""Where Redis is, from its URL, and how a connection to it is opened."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

from sluice_gateway.limits.redis_connection import RedisConnection
from sluice_gateway.limits.scripts import Argument

_PORT = 6379


class RedisAddress(msgspec.Struct, frozen=True, kw_only=True):
    """One server. Its `repr` shows no password."""

    host: str = ""
    port: int = _PORT
    path: str = ""
    """Of a Unix socket, instead of host and port."""
    tls: bool = False
    database: int = 0
    username: str = ""
    password: str = ""

    def __repr__(self) -> str:
        return self.path or f"{self.host}:{self.port}"

    def moved(self, target: str) -> RedisAddress:
        """The same deployment at another node, `host:port`; no host means the same one."""
        host, _, port = target.rpartition(":")
        return msgspec.structs.replace(self, host=host or self.host, port=int(port), path="")

    def greeting(self) -> list[tuple[Argument, ...]]:
        """Commands that begin a connection."""
        commands: list[tuple[Argument, ...]] = []
        if self.password:
            user = (self.username,) if self.username else ()
            commands.append(("AUTH", *user, self.password))
        if self.database:
            commands.append(("SELECT", self.database))
        return commands

    async def connect(self, make: Callable[[], RedisConnection]) -> RedisConnection:
        """Open a connection. Raises `OSError`."""
        loop = asyncio.get_running_loop()
        if self.path:
            _, made = await loop.create_unix_connection(make, self.path)
        else:
            context = ssl.create_default_context() if self.tls else None
            _, made = await loop.create_connection(make, self.host, self.port, ssl=context)
        return made


def parse_address(url: str, password: str = "") -> RedisAddress:
    """Read `redis://[user[:password]@]host[:port][/db]`, `rediss://…` or `unix:///path[?db=N]`.

    `password` wins over the one in the URL. Raises `ValueError`.
    """
    parts = urlsplit(url)
    username, password = unquote(parts.username or ""), password or unquote(parts.password or "")
    if parts.scheme == "unix":
        database = int(parse_qs(parts.query).get("db", ["0"])[0])
        return RedisAddress(path=parts.path, database=database, username=username, password=password)
    return RedisAddress(
        host=parts.hostname or "127.0.0.1",
        port=parts.port or _PORT,
        tls=parts.scheme == "rediss",
        database=int(parts.path.strip("/") or 0),
        username=username,
        password=password,
    )
