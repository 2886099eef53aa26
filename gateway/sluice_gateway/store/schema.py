"""The one collection of tables. Each package declares its own on it, in its `tables.py`."""

from __future__ import annotations

import importlib
import pkgutil
import re
from functools import cache

from sqlalchemy import MetaData

METADATA = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_REVISION = re.compile(r"(\d{4})_\w+")


@cache
def declare_all() -> MetaData:
    """`METADATA` with the tables of every package, whether or not it was imported before."""
    import sluice_gateway

    for package in pkgutil.iter_modules(sluice_gateway.__path__):
        if package.ispkg:
            name = f"sluice_gateway.{package.name}"
            if any(m.name == "tables" for m in pkgutil.iter_modules(importlib.import_module(name).__path__)):
                importlib.import_module(f"{name}.tables")
    return METADATA


def newest_revision() -> str:
    """The last migration's number: migrations form one line, `0001`, `0002`, ..."""
    from sluice_gateway.store.migrations import versions

    found = (_REVISION.fullmatch(module.name) for module in pkgutil.iter_modules(versions.__path__))
    return max(match[1] for match in found if match)
