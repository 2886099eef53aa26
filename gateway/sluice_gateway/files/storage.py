"""The content of files: one plain file each, in one folder.

Invariant: under its final name a file is complete and on disk. It grows under a temporary name, is synced,
and then renamed; a crash leaves at most what `leftovers` finds. Nothing here knows whose a file is.

Writing waits for the disk and therefore happens on threads, in pieces of `_PIECE_BYTES`.
"""

from __future__ import annotations

import asyncio
import os
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import msgspec

from sluice_gateway.threads import in_thread

_PIECE_BYTES = 1 << 20
_GROWING = ".part"
LEFTOVER_AFTER_S = 3600.0
"""What nobody has written to for so long, and no row knows, belongs to nobody."""


class Content(msgspec.Struct, frozen=True, kw_only=True):
    """What was written."""

    bytes: int
    sha256: str


class Storage:
    """The folder, made when it is first needed. Several processes may share it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, file_id: str) -> Path:
        """Where a file's content is, or will be."""
        return self._folder / file_id

    def writer(self, file_id: str) -> Writer:
        """Begin a file."""
        return Writer(self.path(file_id))

    def remove(self, file_id: str) -> None:
        """Delete a file's content, if it is there."""
        self.path(file_id).unlink(missing_ok=True)

    def leftovers(self, now: float) -> list[Path]:
        """Files that have not changed for `LEFTOVER_AFTER_S` before `now`, seconds since 1970."""
        found = []
        for path in self._folder.glob("file-*"):
            try:
                if path.stat().st_mtime < now - LEFTOVER_AFTER_S:
                    found.append(path)
            except FileNotFoundError:
                continue
        return found


class Writer:
    """A file that grows. Leaving the block without `commit` removes it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._growing = path.with_name(path.name + _GROWING)
        self._file: BinaryIO | None = None
        self._digest = sha256()
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self.size = 0
        """Bytes so far."""

    async def __aenter__(self) -> Writer:
        try:
            await in_thread(self._create)
        except asyncio.CancelledError:
            if self._file is not None:  # the thread made the file all the same
                await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
        self._growing.unlink(missing_ok=True)

    async def write(self, data: bytes) -> None:
        """Append. Raises `OSError` when the disk is full."""
        self.size += len(data)
        self._pending.append(data)
        self._pending_bytes += len(data)
        if self._pending_bytes >= _PIECE_BYTES:
            await self._flush()

    async def commit(self) -> Content:
        """Give the file its final name, once it is on disk."""
        await self._flush()
        assert self._file is not None
        file, self._file = self._file, None
        await in_thread(self._finish, file)
        return Content(bytes=self.size, sha256=self._digest.hexdigest())

    async def _flush(self) -> None:
        data, self._pending, self._pending_bytes = b"".join(self._pending), [], 0
        if data:
            await in_thread(self._append, data)

    def _create(self) -> None:
        self._growing.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._file = self._growing.open("xb")

    def _append(self, data: bytes) -> None:
        assert self._file is not None
        self._file.write(data)
        self._digest.update(data)

    def _finish(self, file: BinaryIO) -> None:
        with file:
            file.flush()
            os.fsync(file.fileno())
        self._growing.rename(self._path)
        sync_folder(self._path.parent)


def sync_folder(folder: Path) -> None:
    """Have names in a folder outlive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
