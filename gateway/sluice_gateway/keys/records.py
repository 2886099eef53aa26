"""Tenants, keys and audit entries as they are shown: values without secrets.

`Definition` is what may be said about a key, checked in one place whoever says it. Times are seconds since
1970.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Generic, Literal, TypeVar

import msgspec
from msgspec import Meta

from sluice_gateway.errors import Failure, Problem, problem
from sluice_gateway.identity import LimitValues, Scopes
from sluice_gateway.limits.settings import Bounded
from sluice_gateway.routes import Kind
from sluice_gateway.settings_base import Name, Quant, Section

Source = Literal["store", "file"]
"""Where something is kept. What is in the configuration file cannot be changed through the API."""
Text = Annotated[str, Meta(min_length=1, max_length=256)]
Description = Annotated[str, Meta(max_length=500)]


class Refused(Exception):
    """An administrator asked for what cannot be; the problem is for them."""

    def __init__(self, found: Problem) -> None:
        super().__init__(found.message)
        self.problem = found


class ScopeDefinition(Section, frozen=True, kw_only=True):
    """See `identity.Scopes`."""

    models: tuple[Text, ...] | None = None
    backends: tuple[Text, ...] | None = None
    quants: tuple[Quant, ...] | None = None
    endpoints: tuple[Kind, ...] | None = None
    admin: bool = False

    def values(self) -> Scopes:
        """The same as a plain value."""
        sets = {name: getattr(self, name) for name in ("models", "backends", "quants", "endpoints")}
        several = {name: None if value is None else frozenset(value) for name, value in sets.items()}
        return Scopes(**several, admin=self.admin)


class Definition(Section, frozen=True, kw_only=True):
    """What is said about a key when it is made or changed."""

    description: Description = ""
    scopes: ScopeDefinition = ScopeDefinition()
    limits: Bounded = Bounded()
    expires_at: Annotated[float, Meta(ge=0)] | None = None


class TenantDefinition(Section, frozen=True, kw_only=True):
    """The same of a tenant."""

    description: Description = ""
    limits: Bounded = Bounded()


class SecretRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A secret of a key, without the secret."""

    hint: str
    """Its last characters."""
    created_at: float
    expires_at: float | None
    """Until when it works beside its successor."""


class KeyRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A key as it is shown."""

    id: str
    tenant: str
    description: str
    scopes: Scopes
    limits: LimitValues
    created_at: float | None
    expires_at: float | None
    revoked_at: float | None
    secrets: tuple[SecretRecord, ...]
    source: Source


class IssuedKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key together with its new secret, which is never shown again."""

    key: KeyRecord
    secret: str


class TenantRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant as it is shown."""

    id: str
    description: str
    limits: LimitValues
    created_at: float | None
    source: Source


class AuditRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One administrative action."""

    id: int
    at: float
    actor: str
    """The id of the key that was used; `cli`, `bootstrap`, or `open` without any."""
    action: str
    subject: str
    before: msgspec.Raw | None
    after: msgspec.Raw | None
    request_id: str | None


class Actor(msgspec.Struct, frozen=True):
    """Who does something, for the audit log."""

    name: str
    request_id: str | None = None


Item = TypeVar("Item")


class Page(msgspec.Struct, Generic[Item], frozen=True):
    """A part of a list."""

    items: Sequence[Item]
    has_more: bool


Defined = TypeVar("Defined", Definition, TenantDefinition)


def defined(kind: type[Defined], said: Mapping[str, Any]) -> Defined:
    """The definition that someone gave. Raises `Refused`, naming the value that is wrong."""
    try:
        return msgspec.convert(said, kind)
    except msgspec.ValidationError as error:
        sentence, _, where = str(error).partition(" - at `$")
        param = where.strip("`.") or None
        sentence = sentence.replace("`", "'")
        text = f"{param}: {sentence}." if param else f"{sentence}."
        raise Refused(problem(Failure.INVALID_REQUEST, text, param=param)) from None


def checked_name(name: str) -> str:
    """A name for a key or a tenant. Raises `Refused` when it is none."""
    try:
        return msgspec.convert(name, Name)
    except msgspec.ValidationError:
        text = f"'{name[:80]}' cannot be an id: letters, digits, '.', '_' and '-', 64 at most, no sign first."
        raise Refused(problem(Failure.INVALID_REQUEST, text, param="id")) from None


def merged(old: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON merge patch (RFC 7396), except that null sets a value to null: with us that is "no bound"."""
    result = dict(old)
    for name, value in patch.items():
        inner = result.get(name)
        both = isinstance(value, Mapping) and isinstance(inner, Mapping)
        result[name] = merged(inner or {}, value) if both else value
    return result
