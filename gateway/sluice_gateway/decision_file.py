"""The router's decisions in a file (`sluice_router.decision_log`): bounded, and never in a request's way.

Lines go to a buffer that is written out when it is full. A log can be replayed only from its start, so that
nothing is cut off at the beginning: a file that has reached its size ends, and so does one whose disk is
full. That is said once, and requests go on.
"""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path
from typing import BinaryIO

from sluice_gateway.config import ConfigError
from sluice_gateway.routing_settings import DecisionLogSettings

_PATTERN = "decisions-*.jsonl"
_BUFFER_BYTES = 1 << 18
_log = logging.getLogger("sluice")


class DecisionFile:
    """One router's log."""

    def __init__(self, settings: DecisionLogSettings) -> None:
        """Begin a new file, readable by its owner alone. Raises `ConfigError` when that is not possible."""
        folder = Path(settings.folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.path, self._file = _new_file(folder)
            _remove_oldest(folder, settings.files, self.path)
        except OSError as error:
            raise ConfigError(
                f"Cannot write decisions to decision_log.folder {folder}: {error.strerror}."
            ) from None
        self._left = settings.max_bytes

    def write(self, line: bytes) -> None:
        """Add a line, with its line break. After the end it does nothing."""
        if self._file.closed:
            return
        self._left -= len(line)
        if self._left < 0:
            self.close()
            _log.warning("decision log %s is full and ends; decision_log.max_bytes has its size", self.path)
            return
        try:
            self._file.write(line)
        except OSError as error:
            self._abandon(error)

    def close(self) -> None:
        """Write out what is in the buffer, and end. Idempotent."""
        try:
            self._file.close()
        except OSError as error:
            self._abandon(error)

    def _abandon(self, error: OSError) -> None:
        with contextlib.suppress(OSError):
            self._file.close()
        _log.warning("decision log %s ends: %s", self.path, error.strerror)


def _new_file(folder: Path) -> tuple[Path, BinaryIO]:
    number = 1
    while True:
        path = folder / f"decisions-{os.getpid()}-{number}.jsonl"
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            number += 1
            continue
        return path, os.fdopen(descriptor, "wb", buffering=_BUFFER_BYTES)


def _remove_oldest(folder: Path, kept: int, newest: Path) -> None:
    """Of this process and of others, but for the one that was just begun."""
    others = sorted((p for p in folder.glob(_PATTERN) if p != newest), key=lambda p: p.stat().st_mtime_ns)
    for path in others[: max(0, len(others) - (kept - 1))]:
        path.unlink(missing_ok=True)
