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
from sluice_gateway.settings import Settings

if TYPE_CHECKING:
    from sluice_gateway.keys.service import KeyService
    from sluice_gateway.store.database import Database

Result = TypeVar("Result")

ACTOR = Actor("cli")


def with_service(config_file: Path | None, action: Callable[[KeyService], Awaitable[Result]]) -> Result:
    """What an action on the configured store's keys returns. Raises `ConfigError` in one sentence."""
    # SQLAlchemy takes a while to import; `--help` does not need it.
    from sluice_gateway.keys.service import KeyService
    from sluice_gateway.keys.snapshot import FileKeys

    settings = config.for_serving(config_file, os.environ)
    file_keys = FileKeys(settings.keys, settings.tenants)
    return _with_store(settings, lambda database: action(KeyService(database, file_keys)))


def with_database(config_file: Path | None, action: Callable[[Database], Awaitable[Result]]) -> Result:
    """What an action on the configured store returns. Raises `ConfigError` in one sentence."""
    return _with_store(config.for_serving(config_file, os.environ), action)


def _with_store(settings: Settings, action: Callable[[Database], Awaitable[Result]]) -> Result:
    from sluice_gateway.store.database import Database, StoreError

    async def run() -> Result:
        database = Database(settings.store.url)
        try:
            await database.migrate()
            return await action(database)
        finally:
            await database.aclose()

    try:
        return asyncio.run(run())
    except (Refused, StoreError) as error:
        raise ConfigError(str(error)) from error
