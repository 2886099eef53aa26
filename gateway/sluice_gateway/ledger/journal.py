"""Rows on disk until the database has them.

A folder of segments. Rows are appended to the active segment in groups; sealed segments wait, oldest first,
until they are stored and forgotten. A group is one frame:

    length (4 bytes) | CRC-32 of the payload (4 bytes) | payload: MessagePack list of rows

Invariant: what was appended is read back whole and in order, or its segment's tail is missing; a torn or
damaged frame takes with it nothing that came before it. Appending hands the bytes to the kernel: they survive
the death of the process. `sync` is for rows that have to wait for long, so that they survive a power cut too;
rows that reach the database at once are as safe as the database makes them.

Each run of a process has segments of its own under a lock that ends with the process. Segments whose run has
ended are adopted by whoever finds them. Nothing here knows of databases or event loops: calls block, and come
from one thread at a time.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import struct
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from sluice_gateway.ledger.row import Row

MAGIC = b"SLCUSE01"
"""Begins every segment; its last two characters are the version of the rows in it."""

_log = logging.getLogger("sluice")
_FRAME = struct.Struct("<II")
_ROWS_PER_FRAME = 256
_SEGMENT_BYTES = 262_144
_SUFFIX, _LOCK_SUFFIX, _UNREADABLE_SUFFIX = ".rows", ".lock", ".unreadable"
_DECODER = msgspec.msgpack.Decoder(list[tuple[str | int | bool | None, ...]])


class Journal:
    """One run's journal. `open` before anything else."""

    def __init__(self, folder: Path, writer: int, max_bytes: int) -> None:
        """`writer` identifies the run; `max_bytes` bounds what may wait."""
        self._folder = folder
        self._name = f"{writer:016x}"
        self._max_bytes = max_bytes
        self._segment_bytes = min(_SEGMENT_BYTES, max_bytes // 8)
        self._lock: int | None = None
        self._active: int | None = None
        self._active_path = folder
        self._active_bytes = 0
        self._next = 0
        self._sealed: deque[tuple[Path, int]] = deque()
        """Path and size, oldest first."""
        self._sealed_bytes = 0
        self._synced = folder
        """The newest sealed segment that is known to be on the disk itself."""

    @property
    def size_bytes(self) -> int:
        """What waits, the active segment included."""
        return self._sealed_bytes + self._active_bytes

    def open(self) -> int:
        """Make the folder, lock this run's name, adopt what ended runs left. How many segments those were.

        Raises `OSError`.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock = _acquire(self._folder / (self._name + _LOCK_SUFFIX))
        for name in sorted(self._other_runs()):
            self._adopt(name)
        return len(self._sealed)

    def append(self, rows: Sequence[Row]) -> None:
        """Hand rows to the kernel: all of them, or none and an `OSError`."""
        data = b"".join(_frames(rows))
        if self._active is None:
            self._begin_segment()
        assert self._active is not None
        try:
            _write_all(self._active, data)
        except OSError:
            os.ftruncate(self._active, self._active_bytes)
            os.lseek(self._active, self._active_bytes, os.SEEK_SET)
            raise
        self._active_bytes += len(data)
        if self._active_bytes >= self._segment_bytes:
            self.seal()

    def seal(self) -> None:
        """End the active segment: from here on it can be read and forgotten."""
        if self._active is None:
            return
        os.close(self._active)
        self._keep(self._active_path, self._active_bytes)
        self._active, self._active_bytes = None, 0

    def oldest(self) -> Path | None:
        """The sealed segment that has waited longest."""
        return self._sealed[0][0] if self._sealed else None

    def read(self, segment: Path) -> list[bytes]:
        """The groups of a sealed segment (`rows_of`), without a torn tail, which is logged."""
        data = segment.read_bytes()
        if len(data) >= len(MAGIC) and not data.startswith(MAGIC):
            aside = segment.with_suffix(_UNREADABLE_SUFFIX)
            segment.rename(aside)
            _log.error("usage journal: %s is of another version; kept as %s", segment.name, aside.name)
            return []
        groups, end = parse(data)
        if end < len(data):
            _log.warning("usage journal: the last %d bytes of %s are torn", len(data) - end, segment.name)
        return groups

    def forget(self, segment: Path) -> None:
        """Delete the oldest segment, once its rows are stored."""
        path, size = self._sealed.popleft()
        assert path == segment
        self._sealed_bytes -= size
        path.unlink(missing_ok=True)

    def shrink(self) -> int:
        """Delete the oldest segments until the bound holds. How many rows that cost."""
        lost = 0
        while self.size_bytes > self._max_bytes and self._sealed:
            segment = self._sealed[0][0]
            with contextlib.suppress(OSError):
                lost += sum(len(rows_of(group)) for group in self.read(segment))
            self.forget(segment)
        return lost

    def sync(self) -> None:
        """Have the sealed segments written to the disk itself."""
        if not self._sealed or self._sealed[-1][0] == self._synced:
            return
        for path, _ in self._sealed:
            _sync(path, os.O_RDWR)
        _sync(self._folder, os.O_RDONLY)
        self._synced = self._sealed[-1][0]

    def close(self) -> None:
        """Seal, and give up the lock. What still waits is for the next run. Idempotent."""
        self.seal()
        if self._lock is not None:
            if not self._sealed:
                (self._folder / (self._name + _LOCK_SUFFIX)).unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None

    def _begin_segment(self) -> None:
        path = self._new_path()
        active = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        try:
            _write_all(active, MAGIC)
        except OSError:
            os.close(active)
            path.unlink()
            raise
        self._active, self._active_path, self._active_bytes = active, path, len(MAGIC)

    def _new_path(self) -> Path:
        self._next += 1
        return self._folder / f"{self._name}-{self._next:08d}{_SUFFIX}"

    def _keep(self, path: Path, size: int) -> None:
        self._sealed.append((path, size))
        self._sealed_bytes += size

    def _other_runs(self) -> set[str]:
        locks = {path.stem for path in self._folder.glob("*" + _LOCK_SUFFIX)}
        segments = {path.stem.partition("-")[0] for path in self._folder.glob("*" + _SUFFIX)}
        return (locks | segments) - {self._name}

    def _adopt(self, name: str) -> None:
        """Make a run's segments ours, if that run has ended."""
        lock_path = self._folder / (name + _LOCK_SUFFIX)
        lock = os.open(lock_path, os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for path in sorted(self._folder.glob(f"{name}-*{_SUFFIX}")):
                ours = self._new_path()
                path.rename(ours)
                self._keep(ours, ours.stat().st_size)
            lock_path.unlink(missing_ok=True)
        except (BlockingIOError, FileNotFoundError):
            return  # alive, or adopted by another at this moment
        finally:
            os.close(lock)


def parse(data: bytes) -> tuple[list[bytes], int]:
    """The payloads in a segment's bytes, up to the first frame that is torn or damaged, and where that
    begins. They are not decoded: as objects, a segment's rows are ten times as large."""
    payloads: list[bytes] = []
    position = len(MAGIC)
    if len(data) < position:
        return payloads, 0
    while position + _FRAME.size <= len(data):
        length, checksum = _FRAME.unpack_from(data, position)
        begin = position + _FRAME.size
        payload = data[begin : begin + length]
        if not length or len(payload) < length or zlib.crc32(payload) != checksum:
            break
        payloads.append(payload)
        position = begin + length
    return payloads, position


def rows_of(payload: bytes) -> list[Row]:
    """The rows of one group."""
    return _DECODER.decode(payload)


def _frames(rows: Sequence[Row]) -> Iterator[bytes]:
    for begin in range(0, len(rows), _ROWS_PER_FRAME):
        payload = msgspec.msgpack.encode(rows[begin : begin + _ROWS_PER_FRAME])
        yield _FRAME.pack(len(payload), zlib.crc32(payload))
        yield payload


def _write_all(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _acquire(path: Path) -> int:
    """A locked descriptor of the file, which is the one that the name leads to.

    An adopter may lock and remove it between our making and our locking it.
    """
    while True:
        lock = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock), path.stat()):
                return lock
        os.close(lock)
