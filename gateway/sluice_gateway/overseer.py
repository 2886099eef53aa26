"""Who speaks for the whole gateway, be it one process or several.

What is asked of one process but concerns all, the metrics page and a reload, is asked here: a lone process
answers for itself, a worker passes the question on to its supervisor (`supervisor/link.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from sluice_gateway.config import ConfigError
from sluice_gateway.settings import Settings

if TYPE_CHECKING:
    from sluice_gateway.gateway import Gateway

_NO_FILE = "This gateway was not started by sluice serve and cannot read its configuration again; restart it."


class Overseer(Protocol):
    """Answers for all processes."""

    async def metrics_page(self) -> bytes:
        """The metrics of all of them, in Prometheus' text format."""
        ...

    async def reload(self) -> int:
        """Read the configuration again and put it in force in all of them; its number, counted from 1.

        Raises `ConfigError`, in one sentence with the file's line, and has changed nothing then.
        """
        ...


class Alone:
    """There is one process only."""

    def __init__(self, gateway: Gateway, read: Callable[[], Settings] | None = None) -> None:
        """`read` reads the configuration, and raises `ConfigError`. It may block."""
        self._gateway = gateway
        self._read = read

    async def metrics_page(self) -> bytes:
        """See `Overseer`."""
        return self._gateway.metrics.page()

    async def reload(self) -> int:
        """See `Overseer`."""
        if self._read is None:
            raise ConfigError(_NO_FILE)
        return await self._gateway.reload(await asyncio.to_thread(self._read))
