"""The sections `keys`, `tenants` and `jwt` of `sluice.yaml`.

Keys and tenants written here live beside those of the store. They are what the file says and nothing else:
the API and the command line show them and refuse to change them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta

from sluice_gateway.identity import Scopes
from sluice_gateway.limits.settings import Bounded
from sluice_gateway.routes import Kind
from sluice_gateway.settings_base import BaseUrl, Name, Quant, Seconds, Section, Sha256, Weight

Moment = Annotated[datetime, Meta(tz=True)]


class KeySettings(Section, frozen=True, kw_only=True):
    """One API key. `sluice keys new` prints such an entry; `sluice keys create` needs none."""

    id: Annotated[Name, Meta(description="Name of the key in logs and limits. Unique.")]
    sha256: Annotated[
        Sha256,
        Meta(description="SHA-256 of the secret, 64 lower-case hexadecimal digits (`sluice keys hash`)."),
    ]
    tenant: Annotated[Name, Meta(description="Whom requests count for.")] = "default"
    models: Annotated[
        tuple[str, ...] | None,
        Meta(description="Model ids it may use; `llama-*` allows all that begin so. Absent: all."),
    ] = None
    backends: Annotated[
        tuple[str, ...] | None, Meta(description="Names of the backends it may use. Absent: all.")
    ] = None
    quants: Annotated[
        tuple[Quant, ...] | None, Meta(description="Quantizations it may use. Absent: all.")
    ] = None
    endpoints: Annotated[
        tuple[Kind, ...] | None, Meta(description="Kinds of request it may send. Absent: all.")
    ] = None
    admin: Annotated[bool, Meta(description="Whether it may use the admin API.")] = False
    expires: Annotated[
        Moment | None,
        Meta(description="When it stops working, e.g. `2031-01-31T00:00:00Z`. Absent: never."),
    ] = None
    limits: Annotated[Bounded, Meta(description="See *keys.limits* below.")] = Bounded()

    def scopes(self) -> Scopes:
        """What the key may use."""
        return Scopes(
            models=_set(self.models),
            backends=_set(self.backends),
            quants=_set(self.quants),
            endpoints=_set(self.endpoints),
            admin=self.admin,
        )


class TenantSettings(Section, frozen=True, kw_only=True):
    """Whom keys belong to. A tenant without limits, of weight 1, needs no entry."""

    id: Annotated[Name, Meta(description="Name in keys, logs and usage. Unique.")]
    limits: Annotated[Bounded, Meta(description="Bounds that all of the tenant's keys share.")] = Bounded()
    weight: Annotated[
        Weight,
        Meta(
            description="How much it gets, compared with others, of engines that requests wait for; see"
            " [router.md](router.md). From 0.01 to 100."
        ),
    ] = 1.0


class Grant(Section, frozen=True, kw_only=True):
    """What a token with one scope may use. Several scopes add up."""

    scope: Annotated[str, Meta(min_length=1, description="The value to find in the token's scope claim.")]
    models: Annotated[tuple[str, ...] | None, Meta(description="As in *keys*.")] = None
    backends: Annotated[tuple[str, ...] | None, Meta(description="As in *keys*.")] = None
    quants: Annotated[tuple[Quant, ...] | None, Meta(description="As in *keys*.")] = None
    endpoints: Annotated[tuple[Kind, ...] | None, Meta(description="As in *keys*.")] = None
    admin: Annotated[bool, Meta(description="As in *keys*.")] = False

    def scopes(self) -> Scopes:
        """What the scope allows."""
        return Scopes(
            models=_set(self.models),
            backends=_set(self.backends),
            quants=_set(self.quants),
            endpoints=_set(self.endpoints),
            admin=self.admin,
        )


Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""Signatures by a private key. Those with a shared secret, and none at all, cannot even be written down."""


class JwtSettings(Section, frozen=True, kw_only=True):
    """Signed tokens of an OpenID Connect provider as bearer credentials, beside keys."""

    issuer: Annotated[BaseUrl, Meta(description="The token's `iss`, exactly.")]
    audience: Annotated[str, Meta(min_length=1, description="What the token's `aud` must name.")]
    jwks_url: Annotated[
        BaseUrl | None,
        Meta(
            description="Where the issuer publishes its signing keys. Absent: asked from"
            " `/.well-known/openid-configuration` under `issuer`."
        ),
    ] = None
    algorithms: Annotated[
        tuple[Algorithm, ...], Meta(min_length=1, description="Signature algorithms that are accepted.")
    ] = ("RS256", "ES256")
    tenant_claim: Annotated[
        str | None,
        Meta(
            description="The claim that names the tenant; a token without it is refused."
            " Absent: all tokens belong to `default`."
        ),
    ] = None
    scope_claim: Annotated[
        str, Meta(description="The claim with the scopes: a list, or one text with spaces.")
    ] = "scope"
    grants: Annotated[
        tuple[Grant, ...],
        Meta(
            description="What each scope allows; a token with none of them is refused. Absent: every valid"
            " token may use everything but the admin API."
        ),
    ] = ()
    limits: Annotated[Bounded, Meta(description="Bounds of each single token subject (`sub`).")] = Bounded()
    leeway_s: Annotated[
        float, Meta(ge=0, le=300, description="How far the issuer's clock may differ from ours.")
    ] = 30.0
    refresh_s: Annotated[
        Seconds,
        Meta(
            description="Between two looks at the signing keys. A key that is not known yet is"
            " looked for sooner."
        ),
    ] = 300.0


def _set(values: tuple[str, ...] | None) -> frozenset[str] | None:
    return None if values is None else frozenset(values)
