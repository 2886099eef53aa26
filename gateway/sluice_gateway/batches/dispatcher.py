"""The batches of one process: it takes those that nobody works on, as many as it may, and lets them go when
it stops. Several processes share the batches of one store without talking to each other.

Invariant: an error of database or disk ends no batch. It is let go, and taken again after a while.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from sluice_gateway.batches import progress
from sluice_gateway.batches.execution import Execution, Means
from sluice_gateway.batches.store import LeaseLostError
from sluice_gateway.batches.tables import Batch
from sluice_gateway.store.database import UNAVAILABLE
from sluice_gateway.threads import in_thread

_log = logging.getLogger("sluice")

_AT_ONCE = 8
"""Batches that one process works on; their requests share the slots in turn."""
_POLL_S = 2.0
_RELEASE_LIMIT_S = 5.0


class Dispatcher:
    """Works on batches from `start` to `aclose`."""

    def __init__(self, means: Means, owner: str) -> None:
        """`owner` names this process, differently from all others."""
        self._means = means
        self._owner = owner
        self._running: dict[str, Execution] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None
        self._is_away = False

    def start(self) -> None:
        """Begin to take batches."""
        self._loop = asyncio.create_task(self._dispatch_for_ever())

    async def aclose(self) -> None:
        """Stop, and let every batch go, so that another process has it at once. Idempotent."""
        tasks = [*self._tasks, *([self._loop] if self._loop is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def look(self, batch_id: str) -> None:
        """A client has made or changed a batch: see to it at once."""
        execution = self._running.get(batch_id)
        if execution is not None:
            execution.look()
        self._wake.set()

    async def _dispatch_for_ever(self) -> None:
        is_swept = False
        while True:
            try:
                await self._means.store.open()
                if not is_swept:
                    await self._sweep()
                    is_swept = True
                await self._take()
                self._is_away = False
            except Exception as error:  # whatever is wrong with the store, it is looked at again
                if not self._is_away:
                    expected = isinstance(error, UNAVAILABLE)
                    _log.warning("batches wait for the store: %s", error, exc_info=not expected)
                self._is_away = True
            with suppress(TimeoutError):
                async with asyncio.timeout(_POLL_S):
                    await self._wake.wait()
            self._wake.clear()

    async def _take(self) -> None:
        means = self._means
        while len(self._running) < _AT_ONCE:
            batch = await means.store.claim(self._owner, means.wall_clock(), means.lease_s)
            if batch is None:
                return
            execution = self._running[batch.id] = Execution(means, batch)
            task = asyncio.create_task(self._execute(execution))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _execute(self, execution: Execution) -> None:
        batch = execution.batch
        try:
            await execution.run()
        except LeaseLostError:
            await self._release(batch)
        except asyncio.CancelledError:
            await self._release(batch)
            raise
        except Exception as error:
            # Whatever it is, the next attempt begins once the lease has run out, not at once.
            expected = isinstance(error, UNAVAILABLE)
            _log.error("batch %s was let go: %s", batch.id, error, exc_info=not expected)
        finally:
            self._running.pop(batch.id, None)
            self._wake.set()

    async def _release(self, batch: Batch) -> None:
        with suppress(*UNAVAILABLE):
            async with asyncio.timeout(_RELEASE_LIMIT_S):
                await self._means.store.release(batch)

    async def _sweep(self) -> None:
        """Remove progress of batches that have come to their end without it."""
        folder = self._means.folder
        left = sorted(await in_thread(progress.batch_ids, folder))
        for batch_id in await self._means.store.finished(left):
            await in_thread(progress.remove, folder, batch_id)
