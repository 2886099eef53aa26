"""A process that works on batches until it is killed: `python crashing_process.py FOLDER DATABASE_URL`.

It answers every request with what it was asked, slowly, and writes each request to `ran.txt` before it begins
and to `answered.txt` after it has ended.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path

from sluice_gateway.batches.runner_types import CollectedAnswer
from sluice_gateway.batches.service import BatchService
from sluice_gateway.batches.settings import BatchesSettings
from sluice_gateway.files.service import FileService
from sluice_gateway.files.settings import FilesSettings
from sluice_gateway.identity import Key
from sluice_gateway.routes import Kind
from sluice_gateway.store.database import Database

LEASE_S = 1.0


class NotingRunner:
    """Says again, and takes notes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def __call__(
        self, kind: Kind, path: str, body: bytes, key: Key, *, request_id: str, priority: str
    ) -> CollectedAnswer:
        text = json.loads(body)["messages"][0]["content"]
        self._note("ran.txt", text)
        await asyncio.sleep(0.02)
        self._note("answered.txt", text)
        return CollectedAnswer(status=200, body=json.dumps({"said": text}).encode())

    def _note(self, name: str, text: str) -> None:
        with (self._folder / name).open("a") as notes:
            notes.write(f"{text} {os.getpid()}\n")


async def work(folder: Path, url: str) -> None:
    """Until killed."""
    database = Database(url)
    await database.migrate()
    files = FileService(FilesSettings(dir=str(folder / "files")), database, time.time)
    batches = BatchService(
        BatchesSettings(concurrency=2),
        database,
        files,
        NotingRunner(folder),
        lambda key_id: Key(id=key_id, tenant="one"),
        time.time,
        max_body_bytes=4096,
        lease_s=LEASE_S,
    )
    files.start()
    batches.start()
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(work(Path(sys.argv[1]), sys.argv[2]))
