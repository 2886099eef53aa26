"""A container's first key, and which addresses may be listened on."""

from __future__ import annotations

import asyncio
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sluice_gateway.config import ConfigError
from sluice_gateway.keys import bootstrap
from sluice_gateway.keys.records import Actor, KeyRecord
from sluice_gateway.keys.service import KeyService
from sluice_gateway.keys.snapshot import FileKeys
from sluice_gateway.settings import Settings
from sluice_gateway.store.database import Database

from ..serving import settings_of

OUTSIDE = {"host": "0.0.0.0"}


def settings(folder: Path, **sections: Any) -> Settings:
    return settings_of(store={"url": f"sqlite:///{folder}/store.db"}, **sections)


def keys_of(found: Settings) -> dict[str, KeyRecord]:
    async def read() -> dict[str, KeyRecord]:
        database = Database(found.store.url)
        page = await KeyService(database, FileKeys([], [])).keys()
        await database.aclose()
        return {key.id: key for key in page.items}

    return asyncio.run(read())


def test_a_missing_file_gets_a_secret_that_only_its_owner_reads(tmp_path: Path) -> None:
    found, file = settings(tmp_path, server=OUTSIDE), tmp_path / "secrets" / "key"
    bootstrap.prepare(found, {bootstrap.VARIABLE: str(file)})
    assert file.read_text().startswith("sk-sluice-")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    key = keys_of(found)["bootstrap"]
    assert key.scopes.admin
    assert key.secrets[0].hint == file.read_text().strip()[-4:]


def test_an_empty_file_is_filled_and_closed_to_others(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.touch(0o644)
    bootstrap.prepare(settings(tmp_path), {bootstrap.VARIABLE: str(file)})
    assert file.read_text().startswith("sk-sluice-")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_secret_that_is_there_is_used_once(tmp_path: Path) -> None:
    found, file = settings(tmp_path), tmp_path / "key"
    file.write_text("a-secret-from-the-orchestrator\n")
    for _ in range(2):
        bootstrap.prepare(found, {bootstrap.VARIABLE: str(file)})
    assert list(keys_of(found)) == ["bootstrap"]
    file.write_text("another-secret-of-the-orchestrator\n")
    bootstrap.prepare(found, {bootstrap.VARIABLE: str(file)})
    assert len(keys_of(found)) == 2


def test_a_gateway_that_has_keys_is_not_given_another_one(tmp_path: Path) -> None:
    found, file = settings(tmp_path), tmp_path / "key"
    bootstrap.prepare(found, {bootstrap.VARIABLE: str(file)})
    file.unlink()
    bootstrap.prepare(found, {bootstrap.VARIABLE: str(file)})
    assert list(keys_of(found)) == ["bootstrap"]
    assert not file.exists()


def test_a_key_in_the_configuration_file_is_a_key(tmp_path: Path) -> None:
    found, file = settings(tmp_path, keys=[{"id": "a", "sha256": "0" * 64}]), tmp_path / "key"
    bootstrap.prepare(found, {bootstrap.VARIABLE: str(file)})
    assert not file.exists()


def test_whoever_comes_second_uses_the_secret_of_the_first(tmp_path: Path) -> None:
    file = tmp_path / "key"
    first = bootstrap.make(file)
    assert bootstrap.make(file) == first == bootstrap.read(file)


def test_of_many_who_find_no_secret_all_get_the_same(tmp_path: Path) -> None:
    together = threading.Barrier(8)

    def first_start(file: Path) -> str:
        together.wait()
        return bootstrap.make(file)

    with ThreadPoolExecutor(8) as starting:
        for number in range(25):
            secrets = set(starting.map(first_start, [tmp_path / f"key-{number}"] * 8))
            assert secrets == {bootstrap.read(tmp_path / f"key-{number}")}


def shown(found: Settings, environment: dict[str, str]) -> str:
    async def ask() -> str:
        database = Database(found.store.url)
        try:
            await database.migrate()
            return await bootstrap.reveal(database, environment)
        finally:
            await database.aclose()

    return asyncio.run(ask())


def test_the_first_key_is_shown_until_it_opens_nothing(tmp_path: Path) -> None:
    found, file = settings(tmp_path), tmp_path / "key"
    environment = {bootstrap.VARIABLE: str(file)}
    with pytest.raises(ConfigError, match="at its first start"):
        shown(found, environment)
    assert not file.exists()
    bootstrap.prepare(found, environment)
    assert shown(found, environment) == file.read_text().strip()
    test_a_revoked_first_key_does_not_come_back(tmp_path)
    with pytest.raises(ConfigError, match="rotated or revoked") as raised:
        shown(found, environment)
    assert file.read_text().strip() not in str(raised.value)
    with pytest.raises(ConfigError, match="is not set"):
        shown(found, {})


def test_a_revoked_first_key_does_not_come_back(tmp_path: Path) -> None:
    found, file = settings(tmp_path), tmp_path / "key"
    bootstrap.prepare(found, {bootstrap.VARIABLE: str(file)})

    async def revoke() -> None:
        database = Database(found.store.url)
        await KeyService(database, FileKeys([], [])).revoke_key(Actor("test"), "bootstrap")
        await database.aclose()

    asyncio.run(revoke())
    bootstrap.prepare(found, {bootstrap.VARIABLE: str(file)})
    keys = keys_of(found)
    assert list(keys) == ["bootstrap"]
    assert keys["bootstrap"].revoked_at


@pytest.mark.parametrize("secret", ["short", "two words that are long enough", "ä" * 30])
def test_a_secret_that_cannot_be_one_is_refused_and_never_shown(secret: str, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(secret)
    with pytest.raises(ConfigError, match="20 or more ASCII") as raised:
        bootstrap.prepare(settings(tmp_path), {bootstrap.VARIABLE: str(file)})
    assert secret not in str(raised.value)


def test_a_file_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=bootstrap.VARIABLE):
        bootstrap.prepare(settings(tmp_path), {bootstrap.VARIABLE: str(tmp_path)})


def test_without_any_key_only_loopback_is_listened_on(tmp_path: Path) -> None:
    bootstrap.prepare(settings(tmp_path), {})
    with pytest.raises(ConfigError, match="sluice keys create"):
        bootstrap.prepare(settings(tmp_path, server=OUTSIDE), {})


@pytest.mark.parametrize(
    "sections",
    [
        {"keys": [{"id": "a", "sha256": "0" * 64}]},
        {"jwt": {"issuer": "https://login.example", "audience": "sluice"}},
    ],
)
def test_a_credential_in_the_file_is_enough(sections: dict[str, Any], tmp_path: Path) -> None:
    bootstrap.prepare(settings(tmp_path, server=OUTSIDE, **sections), {})


def test_a_key_in_the_store_is_enough_even_a_revoked_one(tmp_path: Path) -> None:
    test_a_revoked_first_key_does_not_come_back(tmp_path)
    bootstrap.prepare(settings(tmp_path, server=OUTSIDE), {})


def test_a_store_that_stays_away_is_one_sentence() -> None:
    away = settings_of(store={"url": "postgresql://me:secret@127.0.0.1:1/x"}, server=OUTSIDE)
    with pytest.raises(ConfigError, match="Cannot open the database") as raised:
        bootstrap.prepare(away, {}, patience_s=0.2)
    assert "secret" not in str(raised.value)
