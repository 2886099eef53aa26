"""Finding adapters: ours and third parties', through one entry-point group.

A distribution registers a factory, usually the adapter class itself, in its `pyproject.toml`:

    [project.entry-points."sluice.engines"]
    my_engine = "my_package.adapter:MyAdapter"

The factory is called with the backend's options from the configuration (a mapping, possibly empty) and raises
`ValueError` with a sentence for the user when it does not like them.

Only adapters that are asked for are imported: a broken plugin that nobody uses does no harm.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib.metadata import EntryPoint, EntryPoints, entry_points

from sluice_engines.adapter import EngineAdapter

GROUP = "sluice.engines"
AdapterFactory = Callable[[Mapping[str, object]], EngineAdapter]


class AdapterError(Exception):
    """An adapter is unknown, ambiguous or broken. The message is a sentence for the user."""


def adapter_names() -> tuple[str, ...]:
    """Names of all registered adapters, sorted. Imports none of them."""
    return tuple(sorted({entry.name for entry in entry_points(group=GROUP)}))


def load_adapters(names: Iterable[str] | None = None) -> dict[str, AdapterFactory]:
    """Factories by name: those in `names`, or all. Raises `AdapterError`."""
    wanted = adapter_names() if names is None else tuple(names)
    return {name: _load(_find(name)) for name in wanted}


def create_adapter(factory: AdapterFactory, options: Mapping[str, object] | None = None) -> EngineAdapter:
    """Call a factory with a backend's options. Raises `AdapterError` when the options do not suit it."""
    try:
        adapter = factory(options or {})
    except ValueError as error:
        raise AdapterError(str(error)) from error
    missing = [name for name in _MEMBERS if not hasattr(adapter, name)]
    if missing:
        raise AdapterError(
            f"{type(adapter).__name__} is not an engine adapter: it has no {', '.join(missing)}."
        )
    return adapter


_MEMBERS = (
    "name",
    "title",
    "default_port",
    "capabilities",
    "health_path",
    "ready_path",
    "metrics_path",
    "load_pages",
    "version",
    "quirks",
    "prepare",
    "parse_load",
    "transport",
    "over",
)


def _find(name: str) -> EntryPoint:
    found = _named(name)
    if not found:
        _registered.cache_clear()  # it may have been installed a moment ago
        found = _named(name)
    if not found:
        raise AdapterError(
            f"There is no engine adapter '{name}'; installed ones: {', '.join(adapter_names())}."
        )
    if len(found) > 1:
        raise AdapterError(
            f"Engine adapter '{name}' is registered more than once ({', '.join(sorted(found))});"
            " uninstall all but one of these packages."
        )
    return next(iter(found.values()))


def _named(name: str) -> dict[str, EntryPoint]:
    """Entries of a name, by what they point to."""
    return {entry.value: entry for entry in _registered(tuple(sys.path)).select(name=name)}


@cache
def _registered(places: tuple[str, ...]) -> EntryPoints:
    """What is installed in `places`, which are `sys.path`. Kept, because finding out reads a file of every
    installed package, and a configuration asks for each of its backends, at every reload anew."""
    return entry_points(group=GROUP)


def _load(entry: EntryPoint) -> AdapterFactory:
    try:
        factory = entry.load()
    except Exception as error:  # a plugin may fail in any way while it is imported
        raise AdapterError(
            f"Engine adapter '{entry.name}'{_origin(entry)} cannot be loaded from '{entry.value}':"
            f" {type(error).__name__}: {error}."
        ) from error
    if not callable(factory):
        raise AdapterError(
            f"Engine adapter '{entry.name}'{_origin(entry)}: '{entry.value}' is not a class or function."
        )
    return factory  # type: ignore[no-any-return]


def _origin(entry: EntryPoint) -> str:
    return f" of package '{entry.dist.name}'" if entry.dist is not None else ""
