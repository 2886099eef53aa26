"""What a batch has achieved so far, on disk before anybody is told.

One file per owner of the batch (`epoch`), written by that owner only, and appended to: a record is a line

    CRC-32 (8 hexadecimal digits) SPACE request index SPACE 'o' or 'e' SPACE result NEWLINE

whose checksum covers what follows it. An owner reads its predecessors' files up to the first record that is
not whole (a crash tears at most the last), and never what is written to them later: an owner that was only
thought dead writes into the void. So a request whose record was read is never run again, and has one result.

Invariant: `append` returns after the record has been synced. Waiting appends share one sync.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal
from zlib import crc32

import msgspec

from sluice_gateway.files.storage import sync_folder
from sluice_gateway.threads import in_thread

Destination = Literal["o", "e"]
"""The output file, or the error file."""

_HEAD_BYTES = 9
_SUFFIX = ".progress"


class Record(msgspec.Struct, frozen=True):
    """The end of one request."""

    index: int
    destination: Destination
    line: bytes
    """Of the result file, without its newline."""


def encode(record: Record) -> bytes:
    """A record as it is on disk. `record.line` must have no newline."""
    rest = b"%d %b %b\n" % (record.index, record.destination.encode(), record.line)
    return b"%08x %b" % (crc32(rest), rest)


def decode(data: bytes) -> Record | None:
    """One line of the file as a record; `None` when it is not a whole one."""
    rest = data[_HEAD_BYTES:]
    if not rest.endswith(b"\n") or data[:_HEAD_BYTES] != b"%08x " % crc32(rest):
        return None
    index, destination, line = rest[:-1].split(b" ", 2)
    return Record(int(index), "o" if destination == b"o" else "e", line)


class ProgressLog:
    """The progress of one batch, as one owner sees it. Not for two at once."""

    def __init__(self, folder: Path, batch_id: str, epoch: int) -> None:
        self._folder = folder
        self._batch_id = batch_id
        self._path = folder / f"{batch_id}.{epoch:08d}{_SUFFIX}"
        self._file: BinaryIO | None = None
        self._ends: dict[Path, int] = {}
        """Bytes of each file that count."""
        self._pending: list[Record] = []
        self._appended = self._durable = 0
        self._syncing = asyncio.Lock()
        self._is_broken = False
        self.done: set[int] = set()
        """Indexes of the requests that have a result."""
        self.failed = 0
        """Those of them that went to the error file."""

    async def open(self) -> None:
        """Read what earlier owners achieved, and begin to write. Raises `OSError`."""
        await in_thread(self._open)

    async def append(self, record: Record) -> None:
        """Have a result stay, also if the caller is cancelled meanwhile.

        Raises `OSError` when the disk does not take it; the log is then of no more use.
        """
        self._pending.append(record)
        self._appended += 1
        await asyncio.shield(asyncio.ensure_future(self._sync_up_to(self._appended)))

    def records(self) -> Iterator[Record]:
        """Every result once. Reads from disk."""
        seen: set[int] = set()
        for path, end in self._ends.items():
            for record, _ in _read(path, end):
                if record.index not in seen:
                    seen.add(record.index)
                    yield record

    async def aclose(self) -> None:
        """Stop writing. Idempotent."""
        async with self._syncing:
            if self._file is not None:
                self._file.close()
                self._file = None

    def _open(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in sorted(self._folder.glob(f"{self._batch_id}.*{_SUFFIX}")):
            self._ends[path] = 0
            for record, end in _read(path, None):
                self._note(record)
                self._ends[path] = end
        self._file = self._path.open("xb", buffering=0)
        self._ends[self._path] = 0
        sync_folder(self._folder)

    async def _sync_up_to(self, number: int) -> None:
        async with self._syncing:
            if self._durable < number:
                await self._sync()

    async def _sync(self) -> None:
        if self._is_broken or self._file is None:
            raise OSError("the progress of the batch cannot be written")
        records, self._pending = self._pending, []
        number = self._appended
        self._is_broken = True  # until it is known to be whole: a half-written record ends what can be read
        size = await in_thread(_write, self._file, b"".join(map(encode, records)))
        self._is_broken = False
        self._ends[self._path] += size
        self._durable = number
        for record in records:
            self._note(record)

    def _note(self, record: Record) -> None:
        if record.index not in self.done:
            self.done.add(record.index)
            self.failed += record.destination == "e"


def batch_ids(folder: Path) -> set[str]:
    """The batches that have left progress in a folder."""
    return {path.name.partition(".")[0] for path in folder.glob(f"*{_SUFFIX}")}


def remove(folder: Path, batch_id: str) -> None:
    """Delete the progress of a batch: its results are elsewhere."""
    for path in folder.glob(f"{batch_id}.*{_SUFFIX}"):
        path.unlink(missing_ok=True)


def _write(file: BinaryIO, data: bytes) -> int:
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]
    os.fsync(file.fileno())
    return len(data)


def _read(path: Path, end: int | None) -> Iterator[tuple[Record, int]]:
    """Records up to `end`, or the first that is not whole; each with where it ends in the file."""
    position = 0
    with path.open("rb") as file:
        while end is None or position < end:
            data = file.readline()
            record = decode(data)
            if record is None:
                return
            position += len(data)
            yield record, position
