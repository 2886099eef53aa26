"""Byte code of what the gateway loads, and of nothing else: run by its Dockerfile, in the image that is made.

The container cannot write byte code, and that of all that is installed would be a quarter of the image. So
this imports every module of ours, and what they import only when they need it, and Python keeps what it
compiles on the way, of its own library too. What is installed and never loaded stays source.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys

PACKAGES = ("sluice_router", "sluice_engines", "sluice_gateway")
ELSEWHERE = (
    "sluice_engines.baseline",
    "sluice_gateway.compiled.extensions",
    "sluice_gateway.main",
    "sluice_gateway.store.migrations.env",
)
"""What is not for loading: it needs libraries that are not there, makes a gateway at once, or is alembic's to
run."""
LATER = (
    "aiosqlite",
    "asyncpg",
    "concurrent.futures.thread",
    "greenlet",
    "sqlalchemy.dialects.postgresql.asyncpg",
    "sqlalchemy.dialects.sqlite.aiosqlite",
    "uvicorn.lifespan.on",
    "uvloop",
)
"""What libraries load by a name that a configuration holds."""


def main() -> None:
    """Import all of it."""
    sys.dont_write_bytecode = False
    for package in PACKAGES:
        for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
            if not module.name.endswith("__main__") and not module.name.startswith(ELSEWHERE):
                importlib.import_module(module.name)
    for name in LATER:
        importlib.import_module(name)


if __name__ == "__main__":
    main()
