"""A database that does not answer, and does not say that it is gone."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import text

from sluice_gateway.store import transaction
from sluice_gateway.store.database import UNAVAILABLE, Database

from ..postgres import PostgresServer
from ..serving import PATIENCE_S
from ..torture.store_link import store_link


async def test_nobody_waits_for_it_for_ever(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither for a connection that had been used before and is dead by now, nor for a new one."""
    monkeypatch.setattr(transaction, "ACQUIRE_S", 0.5)
    url = postgres.create_database("dead")

    async def count(database: Database) -> object:
        async with database.read() as connection:
            await asyncio.sleep(0.05)  # so that each needs a connection of its own
            return await connection.scalar(text("SELECT count(*) FROM tenants"))

    async with store_link(postgres.port) as (link, port), asyncio.timeout(PATIENCE_S):
        database = Database(url.replace(f":{postgres.port}/", f":{port}/"))
        await database.migrate()
        assert await asyncio.gather(*(count(database) for _ in range(3))) == [0] * 3
        link.turn("dead")
        found = await asyncio.gather(*(count(database) for _ in range(6)), return_exceptions=True)
        assert all(isinstance(error, UNAVAILABLE) for error in found), found
        link.turn("well")
        assert await count(database) == 0
        await database.aclose()
