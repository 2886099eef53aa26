"""A batch outlives the processes that work on it, and what was answered is never asked again."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from sluice_gateway.batches.store import BatchStore

from ..postgres import PostgresServer, binaries, running_server
from ..serving import PATIENCE_S, eventually
from .batch_server import batch_server, jsonl, results

TEXTS = [str(number) for number in range(40)]


@asynccontextmanager
async def working(folder: Path, url: str) -> AsyncIterator[Process]:
    """A process that works on the batches of a folder until the block ends."""
    script = str(Path(__file__).with_name("crashing_process.py"))
    process = await asyncio.create_subprocess_exec(sys.executable, script, str(folder), url, stdout=PIPE)
    try:
        assert process.stdout is not None
        await asyncio.wait_for(process.stdout.readline(), PATIENCE_S)
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def noted(folder: Path, name: str) -> list[str]:
    path = folder / name
    return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []


def recorded(folder: Path) -> set[str]:
    """What is in the progress log, as the next process will find it."""
    logs = (folder / "files" / "progress").iterdir()
    lines = [line for log in logs for line in log.read_bytes().splitlines()]
    return {json.loads(line.split(b" ", 3)[3])["custom_id"].removeprefix("id-") for line in lines if line}


async def test_a_killed_process_is_followed_by_another_that_goes_on(tmp_path: Path) -> None:
    async with batch_server(tmp_path) as at, at.client() as client:
        await at.batches.aclose()  # only the child processes work
        url = f"sqlite:///{tmp_path}/store.db"
        made = await at.batch(client, jsonl(TEXTS))
        async with working(tmp_path, url) as first:
            await eventually(lambda: len(noted(tmp_path, "answered.txt")) >= 15)
            first.send_signal(signal.SIGKILL)
            await first.wait()
        kept = recorded(tmp_path)
        assert 8 <= len(kept) < len(TEXTS)
        before = len(noted(tmp_path, "ran.txt"))
        async with working(tmp_path, url):
            done = await at.until(client, made.id, "completed", "failed")
        assert done.status == "completed"
        assert done.request_counts.model_dump() == {"total": 40, "completed": 40, "failed": 0}
        again = noted(tmp_path, "ran.txt")[before:]
        assert set(again) == set(TEXTS) - kept
        assert len(again) == len(set(again))
        lines = await results(client, done.output_file_id)
        assert {line["response"]["body"]["said"] for line in lines.values()} == set(TEXTS)


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    if binaries() is None:
        pytest.skip("PostgreSQL is not installed")
    with running_server() as server:
        yield server


async def test_two_processes_share_batches_and_never_one_batch(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    url = postgres.create_database("shared")
    async with batch_server(tmp_path, url=url) as at, at.client() as client:
        await at.batches.aclose()
        made = [await at.batch(client, jsonl([f"{name}{n}" for n in range(20)])) for name in "abcdefghijkl"]
        async with working(tmp_path, url), working(tmp_path, url):
            for batch in made:
                done = await at.until(client, batch.id, "completed", "failed")
                assert done.request_counts.completed == 20
        ran = noted(tmp_path, "ran.txt")
        assert len(ran) == len(set(ran)) == 12 * 20


async def test_a_frozen_process_that_wakes_up_changes_nothing(tmp_path: Path) -> None:
    async with batch_server(tmp_path) as at, at.client() as client:
        await at.batches.aclose()
        url = f"sqlite:///{tmp_path}/store.db"
        made = await at.batch(client, jsonl(TEXTS))
        async with working(tmp_path, url) as frozen:
            await eventually(lambda: len(noted(tmp_path, "answered.txt")) >= 10)
            frozen.send_signal(signal.SIGSTOP)
            async with working(tmp_path, url):
                await eventually(lambda: len(noted(tmp_path, "answered.txt")) >= 20)
                frozen.send_signal(signal.SIGCONT)
                done = await at.until(client, made.id, "completed", "failed")
        assert done.request_counts.model_dump() == {"total": 40, "completed": 40, "failed": 0}
        assert len(await results(client, done.output_file_id)) == 40


async def test_a_process_that_stops_in_order_lets_its_batches_go_at_once(tmp_path: Path) -> None:
    async def never(fields: dict[str, Any]) -> Any:
        await asyncio.Event().wait()

    async with batch_server(tmp_path, lease_s=3600.0) as at, at.client() as client:
        at.runner.answer = never
        made = await at.batch(client, ["a"])
        await eventually(lambda: at.runner.running == 1)
        await at.batches.aclose()
        found = await BatchStore(at.database).get(made.id)
        assert found is not None
        assert (found.lease_until, found.status, at.runner.running) == (0.0, "in_progress", 0)


async def test_a_database_that_goes_away_for_a_while_ends_no_batch(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    url = postgres.create_database("away")
    async with batch_server(tmp_path, url=url, lease_s=0.6, concurrency=2) as at, at.client() as client:
        made = await at.batch(client, jsonl(TEXTS))
        await at.until(client, made.id, "in_progress")
        postgres.stop()
        async with at.http as http:
            answer = await http.get(f"/v1/batches/{made.id}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "store_unavailable")
        await asyncio.sleep(1.0)  # several beats
        postgres.start()
        at.now[0] += 10  # the lease that was let go has run out
        done = await at.until(client, made.id, "completed", "failed")
        assert done.request_counts.model_dump() == {"total": 40, "completed": 40, "failed": 0}
        assert len(await results(client, done.output_file_id)) == 40
