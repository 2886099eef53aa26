"""The end of a batch: its progress becomes an output and an error file, and these appear together with its
final status, in one transaction. A crash before that leaves content that nobody knows, and the end is made
again.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AsyncExitStack
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from sluice_gateway.batches import input_file, results
from sluice_gateway.batches.progress import ProgressLog
from sluice_gateway.batches.store import BatchStore
from sluice_gateway.batches.tables import Batch, LineError, Status
from sluice_gateway.files.service import FileService, Origin
from sluice_gateway.files.storage import Writer
from sluice_gateway.files.tables import StoredFile
from sluice_gateway.threads import in_thread

T = TypeVar("T")
_AT_ONCE = 64


class Ending(StrEnum):
    """Why nothing more is run."""

    COMPLETED = "completed"
    """Every request has a result."""
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    KEY_REVOKED = "key_revoked"
    """The key that pays is gone."""
    INPUT_MISSING = "input_file_missing"
    """Somebody deleted the input file."""


class _Last(msgspec.Struct, frozen=True):
    """What an ending looks like."""

    status: Status
    time: str
    """The field with the time of the end."""
    not_run: tuple[str, str] | None
    """Code and sentence for requests that were not run."""


_LAST = {
    Ending.COMPLETED: _Last("completed", "completed_at", None),
    Ending.CANCELLED: _Last("cancelled", "cancelled_at", results.CANCELLED),
    Ending.EXPIRED: _Last("expired", "expired_at", results.EXPIRED),
    Ending.KEY_REVOKED: _Last("failed", "failed_at", results.KEY_REVOKED),
    Ending.INPUT_MISSING: _Last("failed", "failed_at", results.INPUT_MISSING),
}


class _ResultFile:
    """A file that is begun with its first line."""

    def __init__(self, files: FileService, origin: Origin, stack: AsyncExitStack) -> None:
        self._files = files
        self._origin = origin
        self._stack = stack
        self._id = ""
        self._writer: Writer | None = None

    async def write(self, line: bytes) -> None:
        if self._writer is None:
            self._id, writer = self._files.begin()
            self._writer = await self._stack.enter_async_context(writer)
        await self._writer.write(line + b"\n")

    async def commit(self) -> StoredFile | None:
        if self._writer is None:
            return None
        return self._files.describe(self._id, await self._writer.commit(), self._origin)


async def finalize(
    store: BatchStore,
    files: FileService,
    batch: Batch,
    log: ProgressLog,
    source: Source,
    ending: Ending,
    now: int,
) -> None:
    """End a batch. Raises `LeaseLostError`, and what database and disk raise; nothing has happened then."""
    last = _LAST[ending]
    usage = results.UsageSum()
    async with AsyncExitStack() as stack:
        output = _ResultFile(files, _origin(batch, "output"), stack)
        errors = _ResultFile(files, _origin(batch, "error"), stack)
        async for record in _off_the_loop(log.records()):
            await (output if record.destination == "o" else errors).write(record.line)
            if record.destination == "o":
                usage.add(record.line)
        if last.not_run is not None:
            async for line in _off_the_loop(source.not_run(log.done, last.not_run)):
                await errors.write(line)
        made = [await output.commit(), await errors.commit()]
    changes: dict[str, Any] = {
        "status": last.status,
        last.time: now,
        "completed": len(log.done) - log.failed,
        "failed": log.failed,
        "usage": msgspec.json.encode(usage.to_openai()).decode(),
        "output_file_id": made[0].id if made[0] else None,
        "error_file_id": made[1].id if made[1] else None,
    }
    if last.status == "failed" and last.not_run is not None:
        changes["errors"] = encode_errors([LineError(code=last.not_run[0], message=last.not_run[1])])
    async with store.begin() as connection:
        for file in made:
            if file is not None:
                await files.add(file, connection)
        await store.advance(batch, connection, **changes)


class Source(msgspec.Struct, frozen=True):
    """Where the requests of a batch are."""

    path: Path | None
    """`None` when they are not there any more, or have never been looked at."""
    max_line_bytes: int

    def not_run(self, done: set[int], error: tuple[str, str]) -> Iterator[bytes]:
        """Lines of the error file for requests without a result."""
        if self.path is None:
            return
        for request in input_file.requests(self.path, self.max_line_bytes):
            if request.index not in done:
                yield results.not_run(new_request_id(), request.custom_id, error)


def new_request_id() -> str:
    """An id as those of clients' requests."""
    return f"req_{os.urandom(12).hex()}"


def encode_errors(errors: Iterable[LineError]) -> str:
    """As `Batch.errors` has them."""
    return msgspec.json.encode([*errors]).decode()


def _origin(batch: Batch, what: str) -> Origin:
    return Origin(
        tenant=batch.tenant,
        key_id=batch.key_id,
        filename=f"{batch.id}_{what}.jsonl",
        purpose="batch_output",
        lifetime_s=batch.results_lifetime_s,
    )


async def _off_the_loop(items: Iterator[T]) -> AsyncIterator[T]:
    """Items whose making waits for the disk."""
    while some := await in_thread(lambda: [*islice(items, _AT_ONCE)]):
        for item in some:
            yield item
