"""What of a configuration can change while the gateway runs, and the sentence for what cannot.

A section is fixed unless it is named here: a new one cannot be forgotten, only be refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from sluice_gateway.config import ConfigError
from sluice_gateway.settings import Settings

LIVE = frozenset(
    {
        "aliases",
        "backends",
        "cors",
        "failover",
        "health",
        "keys",
        "limits",
        "prices",
        "queue",
        "tenants",
        "timeouts",
        "server.drain_s",
        "server.interrupt_drain_s",
        "logs.requests",
    }
)
"""Sections, and single keys of sections that are otherwise fixed."""


def refuse_fixed(old: Settings, new: Settings) -> None:
    """Raises `ConfigError`, with the keys in it, when `new` needs a restart."""
    changed = sorted(_fixed(old, new))
    if changed:
        names = ", ".join(f"'{name}'" for name in changed)
        raise ConfigError(f"A running gateway cannot change {names}; nothing was changed. Restart it.")


def _fixed(old: Settings, new: Settings) -> Iterator[str]:
    for name in set(Settings.__struct_fields__) - LIVE:
        before, after = getattr(old, name), getattr(new, name)
        if before != after:
            yield from _keys(name, before, after)


def _keys(section: str, before: Any, after: Any) -> Iterator[str]:
    if not isinstance(before, msgspec.Struct) or not isinstance(after, msgspec.Struct):
        yield section
        return
    for key in before.__struct_fields__:
        name = f"{section}.{key}"
        if name not in LIVE and getattr(before, key) != getattr(after, key):
            yield name
