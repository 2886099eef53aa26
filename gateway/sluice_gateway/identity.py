"""Who a request is for: a key, what it may use, and how much.

Values only. Where they come from (the configuration file, the store, a signed token) is `keys`' to know, what
enforces the limits is `limits`' to know. A snapshot of them is replaced as a whole, never changed.
"""

from __future__ import annotations

import msgspec


class LimitValues(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of one subject (a key, a tenant, a model). `None` means no bound."""

    requests_per_min: int | None = None
    tokens_per_min: int | None = None
    """Prompt and completion tokens together."""
    concurrent: int | None = None
    """Requests in the gateway at once, waiting ones included."""
    budget_per_day: float | None = None
    """Money, in the price table's currency, from midnight to midnight UTC."""
    budget_per_month: float | None = None
    """The same from the first of a month."""


NO_LIMITS = LimitValues()


class Scopes(msgspec.Struct, frozen=True, kw_only=True):
    """What a key may use. `None` means all."""

    models: frozenset[str] | None = None
    """Model ids as clients write them, aliases included."""
    backends: frozenset[str] | None = None
    quants: frozenset[str] | None = None
    endpoints: frozenset[str] | None = None
    """Kinds of request (`sluice_gateway.routes.Kind`)."""
    admin: bool = False
    """May use the admin API."""


EVERYTHING = Scopes()


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """The holder of a credential."""

    id: str
    """Name for logs and limits; not secret."""
    tenant: str = "default"
    scopes: Scopes = EVERYTHING
    limits: LimitValues = NO_LIMITS
    tenant_limits: LimitValues = NO_LIMITS
    """Those of its tenant, which all of the tenant's keys share."""
    tenant_weight: float = 1.0
    """What its tenant gets of engines that others wait for too, compared with them."""
    expires_at: float | None = None
    """Seconds since 1970; from then on the key is refused."""
