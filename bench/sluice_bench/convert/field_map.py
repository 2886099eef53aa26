"""Which fields of another tool's file mean what of ours, as data: mapped ones, and refused ones with why.

A mapped field has the other tool's definition, computed from our raw stamps, never from our own metrics.
Where our records cannot tell what the other tool would have written, the field is refused and left out; a
value that the server did not send stays null, and so does every total that it belongs to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import msgspec

Source = TypeVar("Source", contravariant=True)

Json = dict[str, Any]


class Mapped(msgspec.Struct, Generic[Source], frozen=True):
    """A field that is written."""

    theirs: str
    ours: str
    """What of ours it is, in the words of docs/measuring.md."""
    value: Callable[[Source], Any]


class Refused(msgspec.Struct, frozen=True):
    """A field that is not taken, in one direction or the other."""

    theirs: str
    why: str


class Exported(msgspec.Struct, frozen=True, kw_only=True):
    """A run in another tool's format."""

    document: bytes
    refused: Sequence[Refused]
    remarks: Sequence[str]
    """What else a reader must know."""


class BadForeignFile(Exception):
    """Not a file of that tool, or one without requests; the message says what to do."""


def values(fields: Iterable[Mapped[Source]], source: Source) -> Json:
    """All fields of one thing."""
    return {field.theirs: field.value(source) for field in fields}


def unknown_fields(found: Iterable[str], known: Iterable[str], prefix: str = "") -> list[Refused]:
    """Those that this version has never heard of."""
    missing = sorted(set(found) - set(known))
    return [Refused(f"{prefix}{name}", "not known to this version") for name in missing]


def refusals(reasons: Mapping[str, str], found: Iterable[str] | None = None) -> list[Refused]:
    """As a list; with `found`, only of fields that a file really has."""
    present = None if found is None else set(found)
    return [Refused(theirs, why) for theirs, why in reasons.items() if present is None or theirs in present]


def decoded(data: bytes, what: str) -> Any:
    """JSON. Raises `BadForeignFile`."""
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        raise BadForeignFile(f"{what} is not JSON: {error}") from error
