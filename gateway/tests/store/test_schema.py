"""Migrations and declarations end at the same schema, on both databases."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from sluice_gateway.store import migrations
from sluice_gateway.store.database import Database, StoreError
from sluice_gateway.store.schema import METADATA, declare_all, newest_revision


def alembic_config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__path__[0])))
    config.attributes["connection"] = connection
    return config


def differences(connection: Connection) -> list[object]:
    context = MigrationContext.configure(
        connection, opts={"compare_type": True, "compare_server_default": True}
    )
    return list(compare_metadata(context, declare_all()))


def upgrade(connection: Connection, revision: str) -> None:
    command.upgrade(alembic_config(connection), revision)


async def test_what_the_migrations_make_is_what_the_code_declares(store_url: str) -> None:
    database = Database(store_url)
    async with database.begin() as connection:
        await connection.run_sync(upgrade, "head")
        assert await connection.run_sync(differences) == []
    await database.aclose()


async def test_a_new_database_is_at_the_same_place_as_a_migrated_one(store_url: str) -> None:
    database = Database(store_url)
    await database.migrate()
    async with database.begin() as connection:
        assert await connection.run_sync(differences) == []
        assert await connection.scalar(text("SELECT version_num FROM alembic_version")) == newest_revision()
        await connection.run_sync(upgrade, "head")  # alembic takes it for its own
    await database.aclose()


async def test_an_old_database_is_brought_up_to_date_and_keeps_what_it_holds(store_url: str) -> None:
    old = Database(store_url)
    async with old.begin() as connection:
        await connection.run_sync(upgrade, "0001")
        await connection.execute(text("INSERT INTO tenants VALUES ('blue', '', '{}', 1.5)"))
    await old.aclose()
    database = Database(store_url)
    await database.migrate()
    async with database.begin() as connection:
        assert await connection.run_sync(differences) == []
        assert await connection.scalar(text("SELECT created_at FROM tenants WHERE id = 'blue'")) == 1.5
    await database.aclose()


async def test_a_database_of_a_newer_version_is_left_alone(store_url: str) -> None:
    newer = Database(store_url)
    await newer.migrate()
    async with newer.begin() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    await newer.aclose()
    database = Database(store_url)
    with pytest.raises(StoreError, match="9999"):
        await database.migrate()
    await database.aclose()


async def test_a_database_of_something_else_is_left_alone(store_url: str) -> None:
    other = Database(store_url)
    async with other.begin() as connection:
        await connection.execute(text("CREATE TABLE poems (line TEXT)"))
    with pytest.raises(StoreError, match="a database of its own"):
        await other.migrate()
    async with other.begin() as connection:
        await connection.execute(text("SELECT line FROM poems"))
        assert not await connection.run_sync(lambda c: c.dialect.has_table(c, "keys"))
    await other.aclose()


def test_revisions_form_one_line_in_the_order_of_their_numbers() -> None:
    script = ScriptDirectory.from_config(alembic_config())
    numbers = [revision.revision for revision in script.walk_revisions()]
    assert numbers == sorted(numbers, reverse=True)
    assert script.get_heads() == [newest_revision()]


def test_every_package_declares_its_tables_on_the_one_collection() -> None:
    assert {"tenants", "keys", "key_secrets", "audit", "usage"} <= set(declare_all().tables)
    assert declare_all() is METADATA
