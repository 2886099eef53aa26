"""Stored responses on both databases."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from sqlalchemy import func, select

from sluice_gateway.responses_api.store import ResponseStore, Stored
from sluice_gateway.responses_api.tables import EVENTS
from sluice_gateway.store.database import Database

ITEM = {"id": "msg_1", "type": "message", "text": "nul: \0, emoji: 🙂"}


@pytest.fixture
async def database(store_url: str) -> AsyncIterator[Database]:
    database = Database(store_url)
    await database.migrate()
    yield database
    await database.aclose()


@pytest.fixture
def store(database: Database) -> ResponseStore:
    return ResponseStore(database)


def a_response(number: int, previous: int | None = None, **fields: Any) -> Stored:
    response = {"id": f"resp_{number}", "output": [ITEM], "status": "completed"}
    values: dict[str, Any] = {
        "id": f"resp_{number}",
        "tenant": "a",
        "previous_response_id": None if previous is None else f"resp_{previous}",
        "status": "completed",
        "created_at": 1.0,
        "expires_at": 100.0,
        "alive_at": 1.0,
        "streamed": False,
        "response": msgspec.json.encode(response),
        "input_items": msgspec.json.encode([{"id": f"msg_in_{number}"}]),
    }
    return Stored(**{**values, **fields})


async def test_what_was_added_is_found_as_it_was(store: ResponseStore) -> None:
    added = a_response(1)
    await store.add(added)
    assert await store.get("resp_1", "a", now=5.0) == added
    assert added.items() == [{"id": "msg_in_1"}, ITEM]
    assert await store.get("resp_1", "b", now=5.0) is None
    assert await store.get("resp_1", "a", now=100.0) is None


async def test_a_chain_is_found_oldest_first_and_only_the_tenants(store: ResponseStore) -> None:
    await store.add(a_response(0, tenant="b"))
    await store.add(a_response(1, previous=0))
    for number in range(2, 40):
        await store.add(a_response(number, previous=number - 1))
    found = await store.chain("resp_39", "a", now=5.0)
    assert [turn.id for turn in found] == [f"resp_{number}" for number in range(1, 40)]
    assert await store.chain("resp_39", "b", now=5.0) == []


async def test_what_is_continued_lives_as_long_as_what_continues_it(store: ResponseStore) -> None:
    await store.add(a_response(1))
    await store.add(a_response(2, previous=1, expires_at=200.0), ancestors=("resp_1",))
    assert await store.prune(now=150.0) == 0
    assert len(await store.chain("resp_2", "a", now=150.0)) == 2
    assert await store.prune(now=200.0) == 2


async def test_what_is_final_stays(store: ResponseStore) -> None:
    await store.add(a_response(1, status="queued"))
    assert await store.beat("resp_1", "in_progress", now=7.0) == "in_progress"
    assert await store.conclude("resp_1", {"status": "cancelled", "output": []})
    assert not await store.conclude("resp_1", {"status": "completed", "output": []})
    assert await store.beat("resp_1", "in_progress", now=9.0) == "cancelled"
    found = await store.get("resp_1", "a", now=9.0)
    assert found is not None
    assert (found.status, found.alive_at, found.fields()["status"]) == ("cancelled", 7.0, "cancelled")
    assert await store.beat("resp_2", "queued", now=9.0) is None


async def test_events_are_found_from_anywhere_and_go_with_their_response(
    store: ResponseStore, database: Database
) -> None:
    await store.add(a_response(1))
    for first, events in ((0, b"ab"), (2, b"c"), (3, b"de")):
        await store.add_events("resp_1", first, events)
    assert await store.events("resp_1", after=-1) == [(0, b"ab"), (2, b"c"), (3, b"de")]
    assert await store.events("resp_1", after=1) == [(2, b"c"), (3, b"de")]
    assert await store.events("resp_1", after=3) == [(3, b"de")]
    assert await store.events("resp_2", after=-1) == []
    assert await store.delete("resp_1", "a")
    assert not await store.delete("resp_1", "a")
    async with database.read() as connection:
        assert await connection.scalar(select(func.count()).select_from(EVENTS)) == 0
