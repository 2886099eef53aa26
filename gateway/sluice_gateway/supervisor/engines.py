"""The managed engines of all workers, by the configurations that need them.

What runs an engine
(`sluice_gateway.children`) is loaded only when there is one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
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

    async def keep_only(self, numbers: Collection[int]) -> None:
        """Stop what only other configurations need."""
        unneeded = [self._held.pop(number) for number in tuple(self._held) if number not in numbers]
        if self._children is not None:
            await asyncio.gather(*map(self._children.release, unneeded))

    async def aclose(self) -> None:
        """Stop all of them."""
        if self._children is not None:
            await self._children.aclose()
