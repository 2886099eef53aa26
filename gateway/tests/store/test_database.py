"""The database as callers meet it."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import text

from sluice_gateway.store.database import UNAVAILABLE, Database, StoreError


async def test_gateways_that_start_together_make_one_schema(store_url: str) -> None:
    several = [Database(store_url) for _ in range(8)]
    await asyncio.gather(*(database.migrate() for database in several))
    async with several[0].read() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM alembic_version")) == 1
    for database in several:
        await database.aclose()


async def test_a_transaction_that_fails_leaves_nothing(store_url: str) -> None:
    database = Database(store_url)
    await database.migrate()
    insert = text("INSERT INTO tenants VALUES ('blue', '', '{}', 1)")
    with pytest.raises(RuntimeError):
        async with database.begin() as connection:
            await connection.execute(insert)
            raise RuntimeError("half way")
    async with database.read() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM tenants")) == 0
    await database.aclose()


async def test_what_was_read_stays_true_until_it_is_written(tmp_path: Path) -> None:
    """Ten tasks read, wait and write: each must see what the ones before wrote."""
    database = Database(f"sqlite:///{tmp_path}/store.db")
    await database.migrate()
    async with database.begin() as connection:
        await connection.execute(text("INSERT INTO tenants VALUES ('n', '', '{}', 0)"))

    async def add_one() -> None:
        async with database.begin() as connection:
            value = await connection.scalar(text("SELECT created_at FROM tenants"))
            await asyncio.sleep(0)
            await connection.execute(text("UPDATE tenants SET created_at = :v"), {"v": value + 1})

    await asyncio.gather(*(add_one() for _ in range(10)))
    async with database.read() as connection:
        assert await connection.scalar(text("SELECT created_at FROM tenants")) == 10
    await database.aclose()


async def test_its_folder_is_for_its_owner_only(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/data/store.db")
    await database.migrate()
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700
    await database.aclose()


async def test_a_database_in_memory_is_one_for_everybody_who_uses_it() -> None:
    database = Database("sqlite:///:memory:")
    await database.migrate()

    async def count() -> int:
        async with database.read() as connection:
            return int(await connection.scalar(text("SELECT count(*) FROM tenants")) or 0)

    assert await asyncio.gather(*(count() for _ in range(5))) == [0] * 5
    await database.aclose()


@pytest.mark.parametrize("url", ["nonsense", "oracle://x/y", "mysql://x/y", "postgresql://u:secret@h:port/x"])
def test_a_url_that_cannot_be_used_says_what_can(url: str) -> None:
    with pytest.raises(StoreError, match="sqlite:///path or postgresql://") as raised:
        Database(url)
    assert "secret" not in str(raised.value)


async def test_a_database_that_is_not_there_is_one_sentence_without_its_password() -> None:
    database = Database("postgresql://me:secret@127.0.0.1:1/x")
    assert "secret" not in database.name
    with pytest.raises(StoreError) as raised:
        await database.migrate()
    assert "secret" not in str(raised.value)
    assert isinstance(raised.value, UNAVAILABLE)
    await database.aclose()


async def test_a_file_that_is_no_database_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "store.db").write_text("a poem, " * 200)
    database = Database(f"sqlite:///{tmp_path}/store.db")
    with pytest.raises(StoreError, match=r"Cannot open the database .*not a database"):
        await database.migrate()
    await database.aclose()


async def test_a_task_that_is_cancelled_in_a_transaction_leaves_nothing_and_no_connection_open() -> None:
    """The database has a single connection, so that one that is not given back stops everybody."""
    database = Database("sqlite:///:memory:")
    await database.migrate()
    inserted = asyncio.Event()

    async def insert_and_wait() -> None:
        async with database.begin() as connection:
            await connection.execute(text("INSERT INTO tenants VALUES ('blue', '', '{}', 1)"))
            inserted.set()
            await asyncio.sleep(3600)

    task = asyncio.create_task(insert_and_wait())
    await inserted.wait()
    task.cancel()
    await asyncio.wait([task])

    async with asyncio.timeout(10), database.read() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM tenants")) == 0
    await database.aclose()


def test_a_database_that_is_closed_while_a_connection_is_opened_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the gateway is stopped the moment after its start. The driver opens it in a thread, which must
    not come back to a loop that is closed."""
    path, opening, may_open = tmp_path / "store.db", threading.Event(), threading.Event()
    connect, failed = sqlite3.connect, []

    def slowly(*arguments: Any, **options: Any) -> sqlite3.Connection:
        opening.set()
        assert may_open.wait(30)
        return connect(*arguments, **options)

    async def start_and_stop() -> None:
        database = Database(f"sqlite:///{path}")
        starting = asyncio.create_task(database.migrate())
        assert await asyncio.to_thread(opening.wait, 30)
        starting.cancel()
        await asyncio.wait([starting])
        asyncio.get_running_loop().call_later(0.1, may_open.set)
        await database.aclose()

    monkeypatch.setattr("aiosqlite.core.sqlite3.connect", slowly)
    monkeypatch.setattr("threading.excepthook", lambda told: failed.append(told.exc_value))
    threads = set(threading.enumerate())
    asyncio.run(start_and_stop())
    may_open.set()
    for thread in set(threading.enumerate()) - threads:
        thread.join(30)

    assert failed == []
    assert path.exists(), "it was opened"
    assert str(path) not in {opened.path for opened in psutil.Process().open_files()}
