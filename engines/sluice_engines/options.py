"""Adapter options out of the configuration: a mapping in, a checked struct out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import msgspec

T = TypeVar("T", bound=msgspec.Struct)


def convert_options(adapter: str, options: Mapping[str, object], into: type[T]) -> T:
    """`options` as an `into`. Raises `ValueError` with a sentence that names the adapter and the option."""
    known = {field.name for field in msgspec.structs.fields(into)}
    unknown = sorted(options.keys() - known)
    if unknown:
        raise ValueError(
            f"Adapter '{adapter}' has no option '{unknown[0]}'; it has: {', '.join(sorted(known)) or 'none'}."
        )
    try:
        return msgspec.convert(dict(options), into)
    except msgspec.ValidationError as error:
        raise ValueError(f"Adapter '{adapter}': {error}.") from error


def refuse_options(adapter: str, options: Mapping[str, object]) -> None:
    """For adapters without options. Raises `ValueError` when there are any."""
    if options:
        raise ValueError(f"Adapter '{adapter}' has no options, but was given: {', '.join(sorted(options))}.")
