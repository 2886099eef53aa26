"""From a request's end to a row in the database, exactly once, whatever breaks on the way."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from sluice_gateway.ledger import ledger as ledger_module
from sluice_gateway.ledger.archive import Archive
from sluice_gateway.ledger.ledger import Intervals, Ledger
from sluice_gateway.ledger.row import row_of
from sluice_gateway.ledger.settings import LedgerSettings
from sluice_gateway.ledger.tables import USAGE
from sluice_gateway.store.database import Database, StoreError
from sluice_router.types import Usage

from ..postgres import PostgresServer
from .requests import NOON, request

QUICK = Intervals(journal_s=0.005, store_s=0.01, max_backoff_s=0.05, sweep_s=3600)
CRASHING = Path(__file__).with_name("crashing_process.py")


def ledger_in(
    folder: Path,
    database: Database,
    *,
    writer: int = 1,
    max_journal_bytes: int = 2**24,
    days: int | None = None,
) -> Ledger:
    given_settings = LedgerSettings(
        journal_folder=str(folder), max_journal_bytes=max_journal_bytes, retention_days=days
    )
    return Ledger(given_settings, database, writer=writer, wall_clock=lambda: NOON, intervals=QUICK)


async def stored(database: Database) -> list[dict[str, Any]]:
    async with database.begin() as connection:
        rows = await connection.execute(select(USAGE).order_by(USAGE.c.writer, USAGE.c.number))
        return [dict(row._mapping) for row in rows]


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.01)


async def test_a_request_becomes_a_row(database: Database, tmp_path: Path) -> None:
    ledger = ledger_in(tmp_path / "journal", database)
    await ledger.start()
    usage = Usage(prompt_tokens=100, cached_tokens=64, completion_tokens=7)

    ledger.record(request("req_7", usage=usage, cost=0.00000015))
    await ledger.aclose()

    (row,) = await stored(database)
    assert (row["request_id"], row["tenant"], row["key_id"], row["model"]) == ("req_7", "acme", "alice", "m")
    assert (row["prompt_tokens"], row["cached_tokens"], row["completion_tokens"]) == (100, 64, 7)
    assert row["cost_nano"] == 150
    assert row["usage_exact"] is True
    assert row["time_ms"] == NOON * 1000
    assert (row["queue_us"], row["first_token_us"], row["total_us"]) == (1000, None, 250_000)
    assert (row["status"], row["outcome"]) == (200, "ok")


async def test_rows_arrive_while_it_runs(database: Database, tmp_path: Path) -> None:
    ledger = ledger_in(tmp_path / "journal", database)
    await ledger.start()
    try:
        for number in range(1000):
            ledger.record(request(f"req_{number}"))
            if number % 100 == 0:
                await asyncio.sleep(0.01)

        async def all_there() -> bool:
            return len(await stored(database)) == 1000

        await until(all_there)
        assert ledger.snapshot().lost == 0
    finally:
        await ledger.aclose()
    assert ledger.snapshot().journal_bytes == 0


async def test_rows_stored_twice_are_there_once(database: Database) -> None:
    """A crash between commit and forgetting the journal has the rows stored again."""
    rows = [row_of(request(f"req_{number}"), 1, number, NOON) for number in range(5)]
    archive = Archive(database)
    await archive.insert(rows[:3])
    await archive.insert(rows)
    assert [row["number"] for row in await stored(database)] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("when", ["journalled", "half_committed"])
async def test_a_killed_process_loses_nothing_that_was_journalled(
    database: Database, store_url: str, tmp_path: Path, when: str
) -> None:
    journal = tmp_path / "journal"
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(CRASHING), store_url, str(journal), when, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(60):
        assert await process.stdout.readline() == b"recorded\n"
    process.send_signal(signal.SIGKILL)
    await process.wait()
    assert len(await stored(database)) == (0 if when == "journalled" else 500)

    ledger = ledger_in(journal, database, writer=2)
    await ledger.start()
    await ledger.aclose()

    assert [row["request_id"] for row in await stored(database)] == [f"req_{n}" for n in range(500)]
    assert list(journal.iterdir()) == []


async def test_an_hour_without_a_store_loses_nothing(
    postgres: PostgresServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Simulated: what an hour at three requests a second leaves, while the server is down."""
    database = Database(postgres.create_database("hour_without"))
    await database.migrate()
    ledger = ledger_in(tmp_path / "journal", database)
    await ledger.start()
    postgres.stop()
    try:
        for second in range(0, 3600, 36):
            for number in range(108):
                ledger.record(request(f"req_{second}_{number}"))
            await asyncio.sleep(0.002)

        async def has_failed() -> bool:
            return ledger.snapshot().store_failures >= 2

        await until(has_failed)
    finally:
        postgres.start()
    await until(lambda: _stored_all(ledger, 10_800))
    await ledger.aclose()

    assert len(await stored(database)) == 10_800
    assert ledger.snapshot().lost == 0
    assert "cannot store" in caplog.text
    await database.aclose()


async def _stored_all(ledger: Ledger, rows: int) -> bool:
    return ledger.snapshot().stored >= rows


async def test_past_the_bound_the_oldest_rows_are_lost_and_said_so(
    sqlite: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    unreachable = Database("postgresql://sluice@127.0.0.1:1/none")
    ledger = ledger_in(tmp_path / "journal", unreachable, max_journal_bytes=2**20)
    await ledger.start()
    for number in range(20_000):
        ledger.record(request(f"req_{number:05d}"))
        if number % 500 == 0:
            await asyncio.sleep(0.005)
    await ledger.aclose()
    lost = ledger.snapshot().lost
    assert lost > 0
    assert "lost the" in caplog.text

    successor = ledger_in(tmp_path / "journal", sqlite, writer=2)
    await successor.start()
    await successor.aclose()

    kept = [row["request_id"] for row in await stored(sqlite)]
    assert kept == [f"req_{number:05d}" for number in range(lost, 20_000)]
    await unreachable.aclose()


async def test_a_journal_that_cannot_be_written_keeps_rows_in_memory(
    sqlite: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "_MAX_BUFFERED_ROWS", 10)
    ledger = ledger_in(tmp_path / "journal", sqlite)
    await ledger.start()
    (tmp_path / "journal").rename(tmp_path / "away")
    for number in range(5):
        ledger.record(request(f"req_{number}"))
    await asyncio.sleep(0.05)
    for number in range(5, 14):
        ledger.record(request(f"req_{number}"))
    (tmp_path / "away").rename(tmp_path / "journal")
    await ledger.aclose()

    kept = [row["request_id"] for row in await stored(sqlite)]
    lost = ledger.snapshot().lost
    assert kept == [f"req_{number}" for number in range(lost, 14)]
    assert lost == 4


async def test_a_folder_that_cannot_be_used_is_said_at_the_start(sqlite: Database, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ledger = ledger_in(tmp_path / "file" / "journal", sqlite)
    with pytest.raises(StoreError, match="journal_folder"):
        await ledger.start()
    await ledger.aclose()


async def test_old_rows_are_swept(database: Database, tmp_path: Path) -> None:
    day_s = 86_400
    old = [row_of(request(f"old_{n}"), 9, n, NOON - 31 * day_s) for n in range(4500)]
    new = [row_of(request(f"new_{n}"), 9, 10_000 + n, NOON - 29 * day_s) for n in range(3)]
    await Archive(database).insert(old + new)
    ledger = ledger_in(tmp_path / "journal", database, days=30)
    await ledger.start()

    async def swept() -> bool:
        return len(await stored(database)) == 3

    await until(swept)
    await ledger.aclose()
    assert {row["request_id"] for row in await stored(database)} == {"new_0", "new_1", "new_2"}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.text(st.characters(exclude_categories=[]), max_size=400),
    st.text(st.characters(exclude_categories=[]), max_size=10),
    st.integers(),
    st.floats(allow_nan=True, allow_infinity=True),
)
async def test_whatever_clients_and_engines_say_fits_the_table(
    database: Database, tmp_path: Path, model: str, tenant: str, tokens: int, cost: float
) -> None:
    exchange = request(model=model, tenant=tenant, cost=cost)
    exchange.usage = Usage(prompt_tokens=tokens, cached_tokens=-tokens, completion_tokens=tokens * 10**9)
    ledger = ledger_in(tmp_path / "journal", database, writer=hash((model, tenant, tokens, cost)) % 2**62)
    await ledger.start()
    ledger.record(exchange)
    await ledger.aclose()
    assert ledger.snapshot().stored == 1
