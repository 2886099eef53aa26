"""How processes tell each other that keys changed, so that they look before their next poll.

A hint, nothing more: the poll finds every change anyway, so a lost message costs half a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Protocol

import hiredis

from sluice_gateway.limits.redis_address import parse_address
from sluice_gateway.limits.scripts import Argument
from sluice_gateway.limits.settings import Redis

_RETRY_S = 1.0
_PATIENCE_S = 1.0
_READ_BYTES = 65_536


class ChangeFeed(Protocol):
    """Carries hints between processes. Neither call raises while the carrier is down."""

    async def publish(self) -> None:
        """Tell the others."""
        ...

    def changes(self) -> AsyncIterator[None]:
        """An item when somebody told, perhaps one for several; never ends on its own."""
        ...


class RedisFeed:
    """Publish and subscribe over Redis. Changes are rare, so each hint has a connection of its own."""

    def __init__(self, settings: Redis, environment: Mapping[str, str]) -> None:
        """Connects on first use."""
        self._settings = settings
        self._password = environment.get(settings.password_env or "", "")
        self._channel = f"{settings.prefix}:keys"

    async def publish(self) -> None:
        """See `ChangeFeed`."""
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(_PATIENCE_S), self._connection() as (reader, writer):
                writer.write(_packed("PUBLISH", self._channel, ""))
                await reader.read(_READ_BYTES)

    async def changes(self) -> AsyncIterator[None]:
        """See `ChangeFeed`."""
        while True:
            with contextlib.suppress(OSError, TimeoutError):
                async with self._connection() as (reader, writer):
                    writer.write(_packed("SUBSCRIBE", self._channel))
                    yield None  # what was told before is lost
                    while await reader.read(_READ_BYTES):
                        yield None
            await asyncio.sleep(_RETRY_S)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        address = parse_address(self._settings.url, self._password)
        async with asyncio.timeout(_PATIENCE_S):
            if address.path:
                reader, writer = await asyncio.open_unix_connection(address.path)
            else:
                context = ssl.create_default_context() if address.tls else None
                reader, writer = await asyncio.open_connection(address.host, address.port, ssl=context)
        try:
            for command in address.greeting():
                writer.write(_packed(*command))
            yield reader, writer
        finally:
            writer.close()


def _packed(*command: Argument) -> bytes:
    packed: bytes = hiredis.pack_command(command)  # type: ignore[arg-type]
    return packed
