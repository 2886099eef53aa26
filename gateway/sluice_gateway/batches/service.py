"""Batches as the gateway owns them: what clients may do with them, and the process that works on them."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable

from sluice_gateway.batches.creation import new_batch
from sluice_gateway.batches.dispatcher import Dispatcher
from sluice_gateway.batches.execution import Means
from sluice_gateway.batches.holders import bind
from sluice_gateway.batches.runner_types import FindKey, Runner
from sluice_gateway.batches.settings import BatchesSettings
from sluice_gateway.batches.store import BatchStore
from sluice_gateway.batches.tables import Batch
from sluice_gateway.errors import Failure, Problem, problem
from sluice_gateway.files.service import FileService
from sluice_gateway.identity import Key
from sluice_gateway.store.database import Database

LEASE_S = 15.0
"""After a crash, this long goes by before another process takes over."""

_TOO_LATE = ("completed", "failed", "expired", "finalizing")


class BatchService:
    """All batches. `start` before the first use, `aclose` after the last."""

    def __init__(
        self,
        settings: BatchesSettings,
        database: Database,
        files: FileService,
        run: Runner,
        find_key: FindKey,
        wall_clock: Callable[[], float],
        *,
        max_body_bytes: int,
        lease_s: float = LEASE_S,
    ) -> None:
        """`max_body_bytes` is what a request may have elsewhere; `wall_clock` gives seconds since 1970."""
        self.store = BatchStore(database)
        self._files = files
        self._wall_clock = wall_clock
        self._means = Means(
            store=self.store,
            files=files,
            folder=files.folder / "progress",
            run=run,
            find_key=find_key,
            slots=asyncio.Semaphore(settings.concurrency),
            concurrency=settings.concurrency,
            max_line_bytes=max_body_bytes,
            lease_s=lease_s,
            wall_clock=wall_clock,
        )
        owner = f"{socket.gethostname()}-{os.getpid()}-{os.urandom(4).hex()}"
        self._dispatcher = Dispatcher(self._means, owner)

    def start(self) -> None:
        """Begin to work on batches."""
        self._dispatcher.start()

    async def aclose(self) -> None:
        """Let all batches go. Idempotent."""
        await self._dispatcher.aclose()

    async def create(self, body: bytes, key: Key) -> Batch | Problem:
        """A new batch out of a request's body."""
        batch = new_batch(body, key, self._wall_clock())
        if isinstance(batch, Problem):
            return batch
        batch = bind(batch, key, self._means.find_key)
        file = await self._files.get(batch.input_file_id, key.tenant)
        if file is None:
            text = f"There is no file '{batch.input_file_id[:64]}'; upload it with POST /v1/files."
            return problem(Failure.INVALID_REQUEST, text, param="input_file_id")
        if file.purpose != "batch":
            text = f"The file was uploaded for '{file.purpose}'; its purpose must be 'batch'."
            return problem(Failure.INVALID_REQUEST, text, param="input_file_id")
        await self.store.add(batch)
        self._dispatcher.look(batch.id)
        return batch

    async def cancel(self, batch_id: str, key: Key) -> Batch | Problem | None:
        """Have no more of a batch run; `None` when the tenant has no such batch."""
        if await self.store.get(batch_id, key.tenant) is None:
            return None
        await self.store.cancel(batch_id, int(self._wall_clock()))
        self._dispatcher.look(batch_id)
        batch = await self.store.get(batch_id, key.tenant)
        if batch is not None and batch.status in _TOO_LATE:
            return problem(Failure.INVALID_REQUEST, f"A batch that is '{batch.status}' cannot be cancelled.")
        return batch
