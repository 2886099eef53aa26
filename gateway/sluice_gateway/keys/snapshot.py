"""From the configuration file and the store's rows to the snapshot that requests are checked against.

What the file says wins: a key of the store whose id is also in the file is not used, nor are a tenant's
limits. Equal scopes and limits become one object, so that many keys cost little.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import msgspec

from sluice_gateway.auth import Snapshot
from sluice_gateway.identity import NO_LIMITS, Key, LimitValues, Scopes
from sluice_gateway.keys.records import KeyRecord, TenantRecord
from sluice_gateway.keys.settings import KeySettings, TenantSettings

DEFAULT_TENANT = "default"


class FileKeys:
    """The keys and tenants of the configuration file. A changed file makes another one."""

    def __init__(self, keys: Sequence[KeySettings], tenants: Sequence[TenantSettings]) -> None:
        self._keys = keys
        self.tenants = {tenant.id: _tenant_record(tenant) for tenant in tenants}
        self.tenant_names = frozenset({DEFAULT_TENANT, *self.tenants, *(key.tenant for key in keys)})
        """Those too that only keys mention; a tenant without limits needs no entry."""
        self.tenant_weights = {tenant.id: tenant.weight for tenant in tenants}
        self.keys = {key.id: _key_record(key) for key in sorted(keys, key=lambda key: key.id)}

    def identities(self, tenant_limits: Mapping[str, LimitValues]) -> dict[bytes, Key]:
        """By the secret's SHA-256."""
        return {
            bytes.fromhex(key.sha256): Key(
                id=key.id,
                tenant=key.tenant,
                scopes=key.scopes(),
                limits=key.limits.values(),
                tenant_limits=tenant_limits.get(key.tenant, NO_LIMITS),
                tenant_weight=self.tenant_weights.get(key.tenant, 1.0),
                expires_at=key.expires.timestamp() if key.expires else None,
            )
            for key in self._keys
        }


@dataclass(frozen=True)
class StoreState:
    """What was read from the store in one transaction."""

    keyed: bool
    """Whether there ever was a key in it."""
    tenants: Sequence[TenantRecord]
    secrets: Sequence[Any]
    """See `repository.valid_secrets`."""


@dataclass(frozen=True)
class Known:
    """All that a process knows of keys and tenants at one moment."""

    snapshot: Snapshot
    tenant_limits: Mapping[str, LimitValues]
    tenant_weights: Mapping[str, float]
    shadowed: frozenset[str] = frozenset()
    """Ids of the store's keys that the file has too."""


def before_the_store(file: FileKeys) -> Known:
    """What is known until the store has been read: the file. Nobody can say yet that there are no keys."""
    limits = _tenant_limits(file, ())
    return Known(
        Snapshot(file.identities(limits), is_open=False, is_complete=False), limits, file.tenant_weights
    )


def build(file: FileKeys, state: StoreState, *, takes_tokens: bool) -> Known:
    """File and store together. `takes_tokens`: signed tokens are configured, so there is no open mode."""
    limits = _tenant_limits(file, state.tenants)
    shadowed = frozenset(row.id for row in state.secrets if row.id in file.keys)
    keys = _stored([row for row in state.secrets if row.id not in shadowed], limits, file.tenant_weights)
    keys.update(file.identities(limits))
    is_open = not (keys or state.keyed or takes_tokens)
    return Known(Snapshot(keys, is_open=is_open), limits, file.tenant_weights, shadowed)


def _stored(
    rows: Iterable[Any], tenant_limits: Mapping[str, LimitValues], tenant_weights: Mapping[str, float]
) -> dict[bytes, Key]:
    scopes = cache(partial(msgspec.json.decode, type=Scopes))
    limits = cache(partial(msgspec.json.decode, type=LimitValues))
    return {
        bytes.fromhex(row.sha256): Key(
            id=row.id,
            tenant=row.tenant,
            scopes=scopes(row.scopes),
            limits=limits(row.limits),
            tenant_limits=tenant_limits.get(row.tenant, NO_LIMITS),
            tenant_weight=tenant_weights.get(row.tenant, 1.0),
            expires_at=_earlier(row.expires_at, row.until),
        )
        for row in rows
    }


def _earlier(key_ends: float | None, secret_ends: float | None) -> float | None:
    return min((end for end in (key_ends, secret_ends) if end is not None), default=None)


def _tenant_limits(file: FileKeys, stored: Iterable[TenantRecord]) -> dict[str, LimitValues]:
    limits = {tenant.id: tenant.limits for tenant in stored}
    return {**limits, **{tenant.id: tenant.limits for tenant in file.tenants.values()}}


def _tenant_record(tenant: TenantSettings) -> TenantRecord:
    return TenantRecord(
        id=tenant.id, description="", limits=tenant.limits.values(), created_at=None, source="file"
    )


def _key_record(key: KeySettings) -> KeyRecord:
    return KeyRecord(
        id=key.id,
        tenant=key.tenant,
        description="",
        scopes=key.scopes(),
        limits=key.limits.values(),
        created_at=None,
        expires_at=key.expires.timestamp() if key.expires else None,
        revoked_at=None,
        secrets=(),
        source="file",
    )
