"""Before the server listens: the first key of a container, and whether an address may be listened on at all.

`SLUICE_BOOTSTRAP_KEY_FILE` names a file. What is in it becomes the secret of the key `bootstrap`, which may
do everything. A file that is not there, or empty, gets a new secret, readable by its owner only, while there
is no key at all: who has lost the file of a gateway with keys makes another key by command, and nothing is
let in by itself. When the secret is in the store already, nothing is done, so the variable can stay set.

Several gateways that start at once on one file and one store make one secret and one key: whoever locks the
file first writes it, the others read what they find. The secret is in the file and in what `reveal` returns,
never in a message or a log.
"""

from __future__ import annotations

import asyncio
import fcntl
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


async def reveal(database: Database, environment: Mapping[str, str]) -> str:
    """The secret of the first key, for whoever may read its file.

    Raises `ConfigError` when there is none, or when it opens nothing.
    """
    if not environment.get(VARIABLE):
        raise ConfigError(
            f"{VARIABLE} is not set, so there is no first key here; ask where the gateway runs, or make a key"
            " with sluice keys create --admin."
        )
    file = Path(environment[VARIABLE])
    secret = read(file)
    if not secret:
        raise ConfigError(f"There is no secret in {file}: the gateway writes it at its first start.")
    async with database.read() as connection:
        valid = any(row.sha256 == digest(secret) for row in await repository.valid_secrets(connection))
    if not valid:
        raise ConfigError(
            f"The secret in {file} opens nothing any more: its key was rotated or revoked, or the gateway has"
            " another store."
        )
    return secret


async def _bootstrap(settings: Settings, file: Path, patience_s: float) -> None:
    secret = read(file)
    database = await _open(settings, patience_s)
    try:
        if not secret:
            if settings.keys or await _is_keyed(database):
                return
            secret = make(file)
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


def read(file: Path) -> str:
    """The secret in a file, or nothing when it is empty or not there. Raises `ConfigError`."""
    try:
        secret = file.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise _unusable(file, error) from error
    if secret and not _can_be_secret(secret):
        raise ConfigError(
            f"The secret in {file} must be one word of {_SHORTEST} or more ASCII characters;"
            " empty the file to get one."
        )
    return secret


def make(file: Path) -> str:
    """Write a new secret into a file, unless somebody else has just done so. Raises `ConfigError`."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(file, os.O_RDWR | os.O_CREAT, 0o600), "r+", encoding="utf-8") as opened:
            fcntl.flock(opened, fcntl.LOCK_EX)  # until it is closed
            if not opened.read().strip():
                os.fchmod(opened.fileno(), 0o600)  # before there is anything to read: it may have been there
                opened.seek(0)
                opened.write(new_secret() + "\n")
                opened.truncate()
                opened.flush()
                os.fsync(opened.fileno())  # the store must not know a secret that a power cut takes back
    except (OSError, UnicodeDecodeError) as error:
        raise _unusable(file, error) from error
    return read(file)


def _can_be_secret(word: str) -> bool:
    return len(word) >= _SHORTEST and word.isascii() and word.isprintable() and " " not in word


def _unusable(file: Path, error: Exception) -> ConfigError:
    return ConfigError(f"Cannot use {VARIABLE} {file}: {error}.")


async def _is_keyed(database: Database) -> bool:
    """Whether there is a key in the store, or was one."""
    async with database.read() as connection:
        return (await repository.version(connection)).keyed


async def _require_key(settings: Settings, patience_s: float) -> None:
    database = await _open(settings, patience_s)
    try:
        keyed = await _is_keyed(database)
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
