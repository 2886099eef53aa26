"""Bodies of the admin API, as `/openapi.json` describes them.

What a value may be is decided by `keys.records`; here stands what its documentation shows, and the bounds
that keep a number a number. In a change, what is left out stays, and null takes a bound or a scope back.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from sluice_gateway.keys.service import DEFAULT_OVERLAP_S
from sluice_gateway.routes import Kind
from sluice_gateway.settings_base import Quant

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
_TEXT = r"^[^\x00]*$"
_NOW_TO_5138 = 1e11

Name = Annotated[str, Field(pattern=NAME)]
Word = Annotated[str, Field(min_length=1, max_length=256, pattern=_TEXT)]
Description = Annotated[str, Field(max_length=500, pattern=_TEXT)]
Count = Annotated[int, Field(ge=1, le=10**15)]
Money = Annotated[float, Field(gt=0, le=1e12, allow_inf_nan=False)]
Moment = Annotated[float, Field(ge=0, le=_NOW_TO_5138, allow_inf_nan=False)]


class Body(BaseModel):
    """Base of what is sent: an unknown field is an error, since it is a typing mistake."""

    model_config = ConfigDict(extra="forbid")

    def said(self) -> dict[str, Any]:
        """What was sent, and nothing else."""
        return self.model_dump(exclude_unset=True)


class LimitsBody(Body):
    """Bounds; null, or left out of a new one, is no bound."""

    requests_per_min: Count | None = None
    tokens_per_min: Count | None = None
    concurrent: Count | None = None
    budget_per_day: Money | None = None
    budget_per_month: Money | None = None


class ScopesBody(Body):
    """What a key may use; null, or left out of a new one, is all (but not the admin API)."""

    models: Annotated[list[Word] | None, Field(description="`llama-*` allows all that begin so.")] = None
    backends: list[Word] | None = None
    quants: list[Quant] | None = None
    endpoints: list[Kind] | None = None
    admin: bool = False


class TenantPatch(Body):
    """Changes of a tenant."""

    description: Description = ""
    limits: LimitsBody = LimitsBody()


class TenantBody(TenantPatch):
    """A new tenant."""

    id: Name


class KeyPatch(Body):
    """Changes of a key."""

    description: Description = ""
    scopes: ScopesBody = ScopesBody()
    limits: LimitsBody = LimitsBody()
    expires_at: Annotated[Moment | None, Field(description="Seconds since 1970.")] = None


class KeyBody(KeyPatch):
    """A new key."""

    id: Annotated[Name | None, Field(description="Made up when left out.")] = None
    tenant: Name = "default"


class RotationBody(Body):
    """How a key is rotated."""

    overlap_s: Annotated[Moment, Field(description="How long the old secret goes on working.")] = (
        DEFAULT_OVERLAP_S
    )


class SecretView(BaseModel):
    """A secret, without the secret."""

    hint: str = Field(description="Its last characters.")
    created_at: float
    expires_at: float | None


class KeyView(BaseModel):
    """A key."""

    id: str
    tenant: str
    description: str
    scopes: ScopesBody
    limits: LimitsBody
    created_at: float | None
    expires_at: float | None
    revoked_at: float | None
    secrets: list[SecretView]
    source: Literal["store", "file"] = Field(
        description="What is in the configuration file can only be changed there."
    )


class IssuedKeyView(BaseModel):
    """A key with its new secret."""

    key: KeyView
    secret: str = Field(description="Shown only now.")


class TenantView(BaseModel):
    """A tenant."""

    id: str
    description: str
    limits: LimitsBody
    created_at: float | None
    source: Literal["store", "file"]


class AuditView(BaseModel):
    """One administrative action."""

    id: int
    at: float
    actor: str = Field(description="Id of the key that was used; `cli`, `bootstrap`, or `open`.")
    action: str
    subject: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    request_id: str | None


class KeyList(BaseModel):
    """A part of the keys."""

    object: Literal["list"]
    data: list[KeyView]
    has_more: bool
    last_id: str | None = Field(description="`after` of the next part.")


class TenantList(BaseModel):
    """All tenants."""

    object: Literal["list"]
    data: list[TenantView]
    has_more: Literal[False]
    last_id: str | None


class AuditList(BaseModel):
    """A part of the audit log, newest first."""

    object: Literal["list"]
    data: list[AuditView]
    has_more: bool
    last_id: int | None = Field(description="`after` of the next part.")
