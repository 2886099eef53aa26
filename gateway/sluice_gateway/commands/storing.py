"""How a command reaches the store: opened, migrated, used, closed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sluice_gateway import config
from sluice_gateway.config import ConfigError
from sluice_gateway.keys.records import Actor, Refused

if TYPE_CHECKING:
    from sluice_gateway.keys.service import KeyService

Result = TypeVar("Result")

ACTOR = Actor("cli")


def with_service(config_file: Path | None, action: Callable[[KeyService], Awaitable[Result]]) -> Result:
    """What an action on the configured store's keys returns. Raises `ConfigError` in one sentence."""
    # SQLAlchemy takes a while to import; `--help` does not need it.
    from sluice_gateway.keys.service import KeyService
    from sluice_gateway.keys.snapshot import FileKeys
    from sluice_gateway.store.database import Database, StoreError

    settings = config.for_serving(config_file, os.environ)

    async def run() -> Result:
        database = Database(settings.store.url)
        try:
            await database.migrate()
            return await action(KeyService(database, FileKeys(settings.keys, settings.tenants)))
        finally:
            await database.aclose()

    try:
        return asyncio.run(run())
    except (Refused, StoreError) as error:
        raise ConfigError(str(error)) from error
