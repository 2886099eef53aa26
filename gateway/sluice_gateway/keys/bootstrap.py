"""Before the server listens: the first key of a container, and whether an address may be listened on at all.

`SLUICE_BOOTSTRAP_KEY_FILE` names a file. What is in it becomes the secret of the key `bootstrap`, which may
do everything; a file that is not there, or empty, gets a new secret, readable by its owner only. When that
secret is in the store already, nothing is done, so the variable can stay set.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from pathlib import Path

from sluice_gateway.auth import digest, is_loopback, new_secret
from sluice_gateway.config import ConfigError
from sluice_gateway.errors import Failure
from sluice_gateway.keys import repository
from sluice_gateway.keys.records import Actor, Refused
from sluice_gateway.keys.service import KeyService
from sluice_gateway.keys.snapshot import FileKeys
from sluice_gateway.settings import Settings
from sluice_gateway.store.database import Database, StoreError

VARIABLE = "SLUICE_BOOTSTRAP_KEY_FILE"
KEY_ID = "bootstrap"
_SHORTEST = 20
_RETRY_S = 0.5
_EVERYTHING = {"description": "first key, from a file", "scopes": {"admin": True}}


def prepare(settings: Settings, environment: Mapping[str, str], patience_s: float = 30.0) -> None:
    """Make the first key if one is asked for, and refuse to be open to other machines.

    Waits up to `patience_s` for the store where it has to ask it. Raises `ConfigError`.
    """
    if environment.get(VARIABLE):
        asyncio.run(_bootstrap(settings, Path(environment[VARIABLE]), patience_s))
    else:
        require_safe_address(settings, environment, patience_s)


def require_safe_address(
    settings: Settings, environment: Mapping[str, str], patience_s: float = 30.0
) -> None:
    """Refuse to be open to other machines. Asks the store only when nothing else decides it.

    Raises `ConfigError`.
    """
    needs_credential = settings.keys or settings.jwt is not None or environment.get(VARIABLE)
    if not needs_credential and not is_loopback(settings.server.host):
        asyncio.run(_require_key(settings, patience_s))


async def _bootstrap(settings: Settings, file: Path, patience_s: float) -> None:
    secret = read_or_make(file)
    database = await _open(settings, patience_s)
    try:
        service = KeyService(database, FileKeys(settings.keys, settings.tenants))
        if not await _is_known(database, secret):
            await _create(database, service, secret)
    except Refused as refused:
        raise ConfigError(str(refused)) from refused
    finally:
        await database.aclose()


async def _create(database: Database, service: KeyService, secret: str) -> None:
    try:
        await service.create_key(Actor(KEY_ID), _EVERYTHING, name=KEY_ID, secret=secret)
    except Refused as refused:
        if refused.problem.failure is not Failure.CONFLICT:
            raise
        # Another gateway was faster with the same secret, or the file has another one than before.
        if not await _is_known(database, secret):
            await service.create_key(Actor(KEY_ID), _EVERYTHING, secret=secret)


async def _is_known(database: Database, secret: str) -> bool:
    async with database.read() as connection:
        return await repository.has_secret(connection, digest(secret))


def read_or_make(file: Path) -> str:
    """The secret in a file; a new one, if there is none. Raises `ConfigError`."""
    try:
        secret = file.read_text(encoding="utf-8").strip() if file.exists() else ""
        if not secret:
            secret = new_secret()
            file.parent.mkdir(parents=True, exist_ok=True)
            _write_private(file, secret)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"Cannot use {VARIABLE} {file}: {error}.") from error
    if len(secret) < _SHORTEST or not secret.isascii() or not secret.isprintable() or " " in secret:
        raise ConfigError(
            f"The secret in {file} must be one word of {_SHORTEST} or more ASCII characters;"
            " empty the file to get one."
        )
    return secret


def _write_private(file: Path, secret: str) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
        os.fchmod(descriptor, 0o600)  # before there is anything to read: the file may have been there
        opened.write(secret + "\n")


async def _require_key(settings: Settings, patience_s: float) -> None:
    database = await _open(settings, patience_s)
    try:
        async with database.read() as connection:
            keyed = (await repository.version(connection)).keyed
    finally:
        await database.aclose()
    if not keyed:
        raise ConfigError(
            f"Without API keys Sluice listens on loopback only, not on {settings.server.host}:"
            f" make a key with sluice keys create --admin, set {VARIABLE}, or use host 127.0.0.1."
        )


async def _open(settings: Settings, patience_s: float) -> Database:
    """The store, once it can be reached."""
    deadline = time.monotonic() + patience_s
    try:
        database = Database(settings.store.url)
        while True:
            try:
                await database.migrate()
            except StoreError:
                if database.is_sqlite or time.monotonic() > deadline:
                    await database.aclose()
                    raise
                await asyncio.sleep(_RETRY_S)
            else:
                return database
    except StoreError as error:
        raise ConfigError(str(error)) from error
