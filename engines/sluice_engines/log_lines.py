"""A child's output, line by line, into a log."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

MAX_LINE_BYTES = 65536
"""Longer lines are passed on in pieces, so that a child without line feeds costs no memory."""


class LineSplitter:
    """Bytes in, whole lines out."""

    def __init__(self, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self._rest = b""
        self._max = max_line_bytes

    def decode(self, data: bytes) -> list[str]:
        """Lines that `data` completes, without line ends; bytes that are not UTF-8 are replaced."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        while len(self._rest) > self._max:
            lines.append(self._rest[: self._max])
            self._rest = self._rest[self._max :]
        return [line.rstrip(b"\r").decode(errors="replace") for line in lines]

    def flush(self) -> list[str]:
        """The last line, if it lacks a line feed."""
        rest, self._rest = self._rest, b""
        return [rest.decode(errors="replace")] if rest else []


async def forward_lines(fd: int, log: Callable[[str], None]) -> None:
    """Call `log` with each line read from pipe `fd` until it ends. Owns and closes `fd`."""
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(fd, "rb", buffering=0)
    )
    splitter = LineSplitter()
    try:
        while data := await reader.read(MAX_LINE_BYTES):
            for line in splitter.decode(data):
                log(line)
        for line in splitter.flush():
            log(line)
    finally:
        transport.close()
