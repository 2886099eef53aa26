"""What `sluice serve` was asked on its command line, kept so that the configuration can be read again.

The command line wins over the environment, and that over the file, at a reload as at the start.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from sluice_gateway import config, launch
from sluice_gateway.config import ConfigError
from sluice_gateway.settings import Settings

_ALONE = "sluice_gateway.lone_process"
_SUPERVISOR = "sluice_gateway.supervisor"
_CALM_MALLOC = {"MALLOC_ARENA_MAX": "1"}
"""Or glibc gives each thread a heap of its own, and what the threads beside the loop free stays in theirs."""


class ServeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The command line."""

    config_file: str = ""
    host: str | None = None
    port: int | None = None
    workers: int | None = None

    def read(self, environment: Mapping[str, str]) -> Settings:
        """The settings as they are now. Raises `ConfigError`."""
        file = Path(self.config_file) if self.config_file else None
        settings = config.for_serving(file, environment)
        asked = {"host": self.host, "port": self.port, "workers": self.workers}
        chosen: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
        server = msgspec.structs.replace(settings.server, **chosen)
        settings = msgspec.structs.replace(settings, server=server)
        _require_shared_state(settings)
        return settings

    def become_server(self, workers: int) -> NoReturn:
        """Go on as the server, or as the supervisor of several, in this process, without what this one has
        loaded to read a command line."""
        text = msgspec.json.encode(self).decode()
        alone = launch.command(_ALONE, text)
        command = alone if workers == 1 else [sys.executable, "-P", "-m", _SUPERVISOR, text]
        os.execve(sys.executable, command, {**_CALM_MALLOC, **os.environ})


def _require_shared_state(settings: Settings) -> None:
    """What several processes must have in common, or each would have its own."""
    workers = settings.server.workers
    if workers == 1:
        return
    if settings.redis is None:
        raise ConfigError(
            f"{workers} worker processes need Redis, where they share their limits: set 'redis.url' in the"
            " configuration, or serve with one."
        )
    if settings.store.url.endswith(":memory:"):
        raise ConfigError(
            f"{workers} worker processes need a store that they share: set 'store.url' to a file or to"
            " PostgreSQL, or serve with one."
        )
