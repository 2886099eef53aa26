"""Rows of tenants, keys, secrets and the audit log. SQL and nothing else: what is allowed, `service` knows.

Every function takes a connection inside a transaction. Scopes and limits are JSON in one column each: they
are only ever read and written as a whole.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Row, delete, insert, select, text, update

from sluice_gateway.identity import LimitValues, Scopes
from sluice_gateway.keys.records import Actor, AuditRecord, KeyRecord, SecretRecord, TenantRecord
from sluice_gateway.keys.tables import AUDIT, KEY_VERSION, KEYS, SECRETS, TENANTS
from sluice_gateway.store.transaction import Transaction

_IN_CHUNK = 500
"""Bound parameters of one statement are limited, in SQLite and in PostgreSQL's driver."""


class Version(msgspec.Struct, frozen=True):
    """How often keys and tenants were changed."""

    number: int
    keyed: bool
    """Whether there ever was a key."""


async def version(connection: Transaction) -> Version:
    """Where the store stands."""
    row = (await connection.execute(select(KEY_VERSION.c.version, KEY_VERSION.c.keyed))).first()
    return Version(row.version, row.keyed) if row else Version(0, False)


async def raise_version(connection: Transaction) -> None:
    """To be done first in every change: its lock makes changes wait for each other."""
    await connection.execute(
        text(
            "INSERT INTO key_version (id, version, keyed) VALUES (1, 1, :no)"
            " ON CONFLICT (id) DO UPDATE SET version = key_version.version + 1"
        ),
        {"no": False},
    )


async def set_keyed(connection: Transaction) -> None:
    """There is a key: open mode is over for good."""
    await connection.execute(update(KEY_VERSION).values(keyed=True))


# Tenants


async def tenants(connection: Transaction) -> list[TenantRecord]:
    """All, by id."""
    return [_tenant(row) for row in await connection.execute(select(TENANTS).order_by(TENANTS.c.id))]


async def tenant(connection: Transaction, name: str) -> TenantRecord | None:
    """One."""
    row = (await connection.execute(select(TENANTS).where(TENANTS.c.id == name))).first()
    return _tenant(row) if row else None


async def put_tenant(connection: Transaction, record: TenantRecord, *, new: bool) -> None:
    """Insert, or write over."""
    values = {
        "id": record.id,
        "description": record.description,
        "limits": _json(record.limits),
        "created_at": record.created_at,
    }
    statement = insert(TENANTS) if new else update(TENANTS).where(TENANTS.c.id == record.id)
    await connection.execute(statement.values(values))


async def delete_tenant(connection: Transaction, name: str) -> None:
    """Together with its keys, which must be revoked ones."""
    own = select(KEYS.c.id).where(KEYS.c.tenant == name)
    await connection.execute(delete(SECRETS).where(SECRETS.c.key.in_(own)))
    await connection.execute(delete(KEYS).where(KEYS.c.tenant == name))
    await connection.execute(delete(TENANTS).where(TENANTS.c.id == name))


# Keys


async def keys(
    connection: Transaction,
    *,
    tenant: str | None = None,
    after: str = "",
    count: int | None = None,
) -> list[KeyRecord]:
    """Those of one tenant or of all, by id, `count` from the one that follows `after`."""
    query = select(KEYS).where(KEYS.c.id > after).order_by(KEYS.c.id).limit(count)
    if tenant is not None:
        query = query.where(KEYS.c.tenant == tenant)
    return await _with_secrets(connection, (await connection.execute(query)).all())


async def key(connection: Transaction, name: str) -> KeyRecord | None:
    """One."""
    rows = (await connection.execute(select(KEYS).where(KEYS.c.id == name))).all()
    found = await _with_secrets(connection, rows)
    return found[0] if found else None


async def put_key(connection: Transaction, record: KeyRecord, *, new: bool) -> None:
    """Insert, or write over. Secrets are written on their own."""
    values = {
        "id": record.id,
        "tenant": record.tenant,
        "description": record.description,
        "scopes": _json(record.scopes),
        "limits": _json(record.limits),
        "created_at": record.created_at,
        "expires_at": record.expires_at,
        "revoked_at": record.revoked_at,
    }
    statement = insert(KEYS) if new else update(KEYS).where(KEYS.c.id == record.id)
    await connection.execute(statement.values(values))


async def add_secret(connection: Transaction, key_id: str, sha256: str, secret: SecretRecord) -> None:
    """One more secret for a key."""
    values = {"sha256": sha256, "key": key_id, **msgspec.structs.asdict(secret)}
    await connection.execute(insert(SECRETS).values(values))


async def end_secrets(connection: Transaction, key_id: str, at: float) -> None:
    """The secrets that a key has now work until then, or as long as they would have anyway."""
    own = update(SECRETS).where(SECRETS.c.key == key_id)
    later = (SECRETS.c.expires_at.is_(None)) | (SECRETS.c.expires_at > at)
    await connection.execute(own.where(later).values(expires_at=at))


async def has_secret(connection: Transaction, sha256: str) -> bool:
    """Whether some key has this secret."""
    return (
        await connection.execute(select(SECRETS.c.key).where(SECRETS.c.sha256 == sha256))
    ).first() is not None


async def valid_secrets(connection: Transaction) -> Sequence[Row[Any]]:
    """All secrets of keys that are not revoked, each with what makes an identity; encoded as they are stored.

    Columns: sha256, until, id, tenant, scopes, limits, expires_at.
    """
    query = (
        select(
            SECRETS.c.sha256,
            SECRETS.c.expires_at.label("until"),
            *(KEYS.c[name] for name in ("id", "tenant", "scopes", "limits", "expires_at")),
        )
        .join(KEYS, KEYS.c.id == SECRETS.c.key)
        .where(KEYS.c.revoked_at.is_(None))
    )
    return (await connection.execute(query)).all()


async def _with_secrets(connection: Transaction, rows: Sequence[Row[Any]]) -> list[KeyRecord]:
    secrets: dict[str, list[SecretRecord]] = defaultdict(list)
    ids = [row.id for row in rows]
    for start in range(0, len(ids), _IN_CHUNK):
        query = select(SECRETS).where(SECRETS.c.key.in_(ids[start : start + _IN_CHUNK]))
        for row in await connection.execute(query.order_by(SECRETS.c.created_at)):
            secret = SecretRecord(hint=row.hint, created_at=row.created_at, expires_at=row.expires_at)
            secrets[row.key].append(secret)
    return [_key(row, tuple(secrets[row.id])) for row in rows]


# Audit log


async def write_audit(
    connection: Transaction,
    at: float,
    actor: Actor,
    action: str,
    subject: str,
    before: object | None,
    after: object | None,
) -> None:
    """One entry, in the transaction of what it tells. `before` and `after` must hold no secret."""
    values = {
        "at": at,
        "actor": actor.name,
        "action": action,
        "subject": subject,
        "before": None if before is None else _json(before),
        "after": None if after is None else _json(after),
        "request_id": actor.request_id,
    }
    await connection.execute(insert(AUDIT).values(values))


async def audit(connection: Transaction, before_id: int | None, count: int) -> list[AuditRecord]:
    """Newest first, `count` from the one that came before `before_id`."""
    query = select(AUDIT).order_by(AUDIT.c.id.desc()).limit(count)
    if before_id is not None:
        query = query.where(AUDIT.c.id < before_id)
    return [
        AuditRecord(
            id=row.id,
            at=row.at,
            actor=row.actor,
            action=row.action,
            subject=row.subject,
            before=_raw(row.before),
            after=_raw(row.after),
            request_id=row.request_id,
        )
        for row in await connection.execute(query)
    ]


def _tenant(row: Row[Any]) -> TenantRecord:
    return TenantRecord(
        id=row.id,
        description=row.description,
        limits=msgspec.json.decode(row.limits, type=LimitValues),
        created_at=row.created_at,
        source="store",
    )


def _key(row: Row[Any], secrets: tuple[SecretRecord, ...]) -> KeyRecord:
    return KeyRecord(
        id=row.id,
        tenant=row.tenant,
        description=row.description,
        scopes=msgspec.json.decode(row.scopes, type=Scopes),
        limits=msgspec.json.decode(row.limits, type=LimitValues),
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        secrets=secrets,
        source="store",
    )


def _json(value: object) -> str:
    return msgspec.json.encode(value, order="deterministic").decode()


def _raw(value: str | None) -> msgspec.Raw | None:
    return None if value is None else msgspec.Raw(value.encode())
