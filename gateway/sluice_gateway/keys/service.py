"""What can be done with tenants and keys: the one set of rules behind the admin API and the command line.

Every change is one transaction: the version that makes other processes look, the rows, and the audit entry,
or nothing. A secret is made here, handed out once, and only its SHA-256 is kept. What is in the configuration
file is shown and not changed.

A refusal is raised as `Refused`, since it has to undo the transaction it is found in.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, NoReturn

import msgspec

from sluice_gateway.auth import digest, new_secret
from sluice_gateway.errors import Failure, problem
from sluice_gateway.keys import repository
from sluice_gateway.keys.records import (
    Actor,
    AuditRecord,
    Definition,
    IssuedKey,
    KeyRecord,
    Page,
    Refused,
    SecretRecord,
    TenantDefinition,
    TenantRecord,
    checked_name,
    defined,
    merged,
)
from sluice_gateway.keys.snapshot import DEFAULT_TENANT, FileKeys
from sluice_gateway.store.database import UNAVAILABLE, Database
from sluice_gateway.store.transaction import Transaction

DEFAULT_OVERLAP_S = 24 * 3600.0
"""How long an old secret works beside its successor when nothing else is said."""
_HINT = 4
_PATIENCE_S = 10.0


async def _nothing() -> None:
    """Nobody has to be told."""


class KeyService:
    """Tenants, keys and the audit log."""

    def __init__(
        self,
        database: Database,
        file: FileKeys,
        *,
        changed: Callable[[], Awaitable[None]] = _nothing,
        wall_clock: Callable[[], float] = time.time,
        make_secret: Callable[[], str] = new_secret,
    ) -> None:
        """`changed` is awaited after every change that was committed."""
        self._database = database
        self._file = file
        self._changed = changed
        self._now = wall_clock
        self._make_secret = make_secret

    def use_file(self, file: FileKeys) -> None:
        """The configuration file changed."""
        self._file = file

    # Tenants

    async def tenants(self) -> list[TenantRecord]:
        """All of them, the file's first."""
        async with self._reading() as connection:
            stored = await repository.tenants(connection)
        return [*self._file.tenants.values(), *(t for t in stored if t.id not in self._file.tenants)]

    async def tenant(self, name: str) -> TenantRecord:
        """One of them. Raises `Refused`."""
        async with self._reading() as connection:
            return await self._tenant(connection, name)

    async def create_tenant(self, actor: Actor, name: str, said: Mapping[str, Any]) -> TenantRecord:
        """`said`: see `TenantDefinition`."""
        definition = defined(TenantDefinition, said)
        record = TenantRecord(
            id=checked_name(name),
            description=definition.description,
            limits=definition.limits.values(),
            created_at=self._now(),
            source="store",
        )
        async with self._changing() as connection:
            if name in self._file.tenants or await repository.tenant(connection, name):
                _refuse(Failure.CONFLICT, f"There is a tenant '{name}' already.")
            await repository.put_tenant(connection, record, new=True)
            await self._audit(connection, actor, "tenant.create", name, None, record)
        return record

    async def update_tenant(self, actor: Actor, name: str, patch: Mapping[str, Any]) -> TenantRecord:
        """What the patch does not name stays as it is."""
        async with self._changing() as connection:
            old = await self._tenant(connection, name)
            self._refuse_file(old)
            said = {"description": old.description, "limits": msgspec.to_builtins(old.limits)}
            definition = defined(TenantDefinition, merged(said, patch))
            new = msgspec.structs.replace(
                old, description=definition.description, limits=definition.limits.values()
            )
            await repository.put_tenant(connection, new, new=False)
            await self._audit(connection, actor, "tenant.update", name, old, new)
        return new

    async def delete_tenant(self, actor: Actor, name: str) -> None:
        """Together with its revoked keys. Refused while it has others."""
        async with self._changing() as connection:
            old = await self._tenant(connection, name)
            self._refuse_file(old)
            own = await repository.keys(connection, tenant=name)
            alive = [key.id for key in own if key.revoked_at is None]
            if alive:
                text = f"The tenant '{name}' has keys: {', '.join(alive[:5])}. Revoke them first."
                _refuse(Failure.CONFLICT, text)
            await repository.delete_tenant(connection, name)
            await self._audit(connection, actor, "tenant.delete", name, old, None)

    # Keys

    async def keys(
        self, *, tenant: str | None = None, after: str | None = None, count: int = 100
    ) -> Page[KeyRecord]:
        """A part of the list, the file's keys first; `after`: the last id of the part before."""
        own = [key for key in self._file.keys.values() if tenant in (None, key.tenant)]
        in_file = after is None or after in self._file.keys
        first = [key for key in own if after is None or key.id > after] if in_file else []
        async with self._reading() as connection:
            stored = await repository.keys(
                connection, tenant=tenant, after="" if in_file else after or "", count=count + 1
            )
        found = [*first, *(key for key in stored if key.id not in self._file.keys)]
        return Page(found[:count], len(found) > count)

    async def key(self, name: str) -> KeyRecord:
        """One of them. Raises `Refused`."""
        async with self._reading() as connection:
            return await self._key(connection, name)

    async def create_key(
        self,
        actor: Actor,
        said: Mapping[str, Any],
        *,
        name: str | None = None,
        tenant: str = DEFAULT_TENANT,
        secret: str | None = None,
    ) -> IssuedKey:
        """`said`: see `Definition`. Without a `name` it gets one, without a `secret` a new one."""
        definition = defined(Definition, said)
        name = checked_name(name if name is not None else f"key-{secrets.token_hex(4)}")
        secret = secret or self._make_secret()
        now = self._now()
        record = KeyRecord(
            id=name,
            tenant=tenant,
            created_at=now,
            revoked_at=None,
            secrets=(SecretRecord(hint=secret[-_HINT:], created_at=now, expires_at=None),),
            source="store",
            **_values(definition),
        )
        async with self._changing() as connection:
            await self._require_tenant(connection, tenant)
            if name in self._file.keys or await repository.key(connection, name):
                _refuse(Failure.CONFLICT, f"There is a key '{name}' already.")
            await repository.put_key(connection, record, new=True)
            await repository.add_secret(connection, name, digest(secret), record.secrets[0])
            await repository.set_keyed(connection)
            await self._audit(connection, actor, "key.create", name, None, record)
        return IssuedKey(key=record, secret=secret)

    async def update_key(self, actor: Actor, name: str, patch: Mapping[str, Any]) -> KeyRecord:
        """What the patch does not name stays as it is."""
        async with self._changing() as connection:
            old = await self._usable_key(connection, name)
            definition = defined(Definition, merged(_said(old), patch))
            new = msgspec.structs.replace(old, **_values(definition))
            await repository.put_key(connection, new, new=False)
            await self._audit(connection, actor, "key.update", name, old, new)
        return new

    async def rotate_key(self, actor: Actor, name: str, overlap_s: float = DEFAULT_OVERLAP_S) -> IssuedKey:
        """A new secret; the ones before work for `overlap_s` more seconds."""
        if overlap_s < 0:
            _refuse(Failure.INVALID_REQUEST, "The overlap cannot be negative.", "overlap_s")
        secret, now = self._make_secret(), self._now()
        fresh = SecretRecord(hint=secret[-_HINT:], created_at=now, expires_at=None)
        async with self._changing() as connection:
            old = await self._usable_key(connection, name)
            await repository.end_secrets(connection, name, now + overlap_s)
            await repository.add_secret(connection, name, digest(secret), fresh)
            new = await self._key(connection, name)
            await self._audit(connection, actor, "key.rotate", name, old, new)
        return IssuedKey(key=new, secret=secret)

    async def revoke_key(self, actor: Actor, name: str) -> KeyRecord:
        """All its secrets stop working, for good. Nothing happens to a key that is revoked already."""
        async with self._changing() as connection:
            old = await self._key(connection, name)
            self._refuse_file(old)
            if old.revoked_at is not None:
                return old
            new = msgspec.structs.replace(old, revoked_at=self._now())
            await repository.put_key(connection, new, new=False)
            await self._audit(connection, actor, "key.revoke", name, old, new)
        return new

    # Audit log

    async def audit(self, *, after: int | None = None, count: int = 100) -> Page[AuditRecord]:
        """A part of the log, newest first; `after`: the last id of the part before."""
        async with self._reading() as connection:
            found = await repository.audit(connection, after, count + 1)
        return Page(found[:count], len(found) > count)

    async def record(self, actor: Actor, action: str, subject: str, before: object, after: object) -> None:
        """An administrative action that changes nothing in the store, such as draining a backend.

        `before` and `after` are anything JSON can say; they must hold no secret.
        """
        async with self._reachable(), self._database.begin() as connection:
            await self._audit(connection, actor, action, subject, before, after)

    # Parts

    @asynccontextmanager
    async def _changing(self) -> AsyncIterator[Transaction]:
        async with self._reachable(), self._database.begin() as connection:
            await repository.raise_version(connection)
            yield connection
        await self._changed()

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[Transaction]:
        async with self._reachable(), self._database.read() as connection:
            yield connection

    @asynccontextmanager
    async def _reachable(self) -> AsyncIterator[None]:
        """Turn what a database raises into a refusal that says to try again."""
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await self._database.migrate()
                yield
        except UNAVAILABLE as error:
            text = "The key store cannot be used at the moment; nothing was changed. Try again."
            raise Refused(problem(Failure.STORE_UNAVAILABLE, text)) from error

    async def _audit(
        self, connection: Transaction, actor: Actor, action: str, subject: str, old: object, new: object
    ) -> None:
        await repository.write_audit(connection, self._now(), actor, action, subject, old, new)

    async def _tenant(self, connection: Transaction, name: str) -> TenantRecord:
        found = self._file.tenants.get(name) or await repository.tenant(connection, name)
        return found or _refuse(Failure.NOT_FOUND, f"There is no tenant '{name}'.")

    async def _require_tenant(self, connection: Transaction, name: str) -> None:
        if name not in self._file.tenant_names and not await repository.tenant(connection, name):
            text = f"There is no tenant '{name}'; make it first: sluice tenants create {name}."
            _refuse(Failure.INVALID_REQUEST, text, "tenant")

    async def _key(self, connection: Transaction, name: str) -> KeyRecord:
        found = self._file.keys.get(name) or await repository.key(connection, name)
        return found or _refuse(Failure.NOT_FOUND, f"There is no key '{name}'.")

    async def _usable_key(self, connection: Transaction, name: str) -> KeyRecord:
        found = await self._key(connection, name)
        self._refuse_file(found)
        if found.revoked_at is not None:
            _refuse(Failure.CONFLICT, f"The key '{name}' is revoked; make another one.")
        return found

    def _refuse_file(self, record: TenantRecord | KeyRecord) -> None:
        if record.source == "file":
            text = f"'{record.id}' is in the configuration file, and can only be changed there."
            _refuse(Failure.CONFLICT, text)


def _values(definition: Definition) -> dict[str, Any]:
    """A definition's part of a record."""
    return {
        "description": definition.description,
        "scopes": definition.scopes.values(),
        "limits": definition.limits.values(),
        "expires_at": definition.expires_at,
    }


def _said(record: KeyRecord) -> dict[str, Any]:
    names = ("description", "scopes", "limits", "expires_at")
    return {name: msgspec.to_builtins(getattr(record, name)) for name in names}


def _refuse(failure: Failure, message: str, param: str | None = None) -> NoReturn:
    raise Refused(problem(failure, message, param=param))
