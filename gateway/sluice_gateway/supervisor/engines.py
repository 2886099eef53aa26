"""The managed engines of all workers, and until when each is needed.

A configuration's engines are needed while any worker has a request of it. What runs an engine
(`sluice_gateway.children`) is loaded only when there is one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import msgspec

from sluice_gateway.settings import Settings

if TYPE_CHECKING:
    from sluice_gateway.children import Children, Held


class HeldEngines:
    """By the configurations' numbers."""

    def __init__(self, news: Callable[[str, str | None], None]) -> None:
        """`news`: see `sluice_gateway.children`."""
        self._news = news
        self._children: Children | None = None
        self._held: dict[int, Held] = {}
        self._needed_by: dict[int, set[int]] = {}

    def hold(self, number: int, settings: Settings) -> Settings:
        """The settings as workers get them: engines have an address, and nothing to manage.

        Raises `ConfigError` when an engine's program is not installed.
        """
        if all(backend.managed is None for backend in settings.backends):
            return settings
        if self._children is None:
            from sluice_gateway.children import Children

            self._children = Children(self._news)
        held = self._held[number] = self._children.hold(settings.backends)
        return msgspec.structs.replace(settings, backends=held.backends)

    def start(self, number: int) -> None:
        """Start what does not run yet."""
        held = self._held.get(number)
        if self._children is not None and held is not None:
            self._children.start(held)

    def replaced(self, number: int, workers: Iterable[int]) -> None:
        """A configuration is no longer in force, but these processes may have requests of it."""
        self._needed_by[number] = set(workers)

    async def retired(self, number: int, worker: int) -> None:
        """A process has no request of it any more."""
        needed_by = self._needed_by.get(number)
        if needed_by is not None:
            needed_by.discard(worker)
            if not needed_by:
                await self.forget(number)

    async def gone(self, worker: int) -> None:
        """A process has ended."""
        for number in tuple(self._needed_by):
            await self.retired(number, worker)

    async def forget(self, number: int) -> None:
        """Stop what only this configuration needs."""
        self._needed_by.pop(number, None)
        held = self._held.pop(number, None)
        if self._children is not None and held is not None:
            await self._children.release(held)

    async def aclose(self) -> None:
        """Stop all of them."""
        if self._children is not None:
            await self._children.aclose()
