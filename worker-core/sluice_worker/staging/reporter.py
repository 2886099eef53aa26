"""Telling a person, or a container's log, how far staging is."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol, TextIO

REDRAWN_EVERY_S = 0.2


class Reporter(Protocol):
    """Is told everything that happens; each method is called before the next change to the disk."""

    def say(self, line: str) -> None:
        """Something a person wants to know."""

    def step(self, name: str) -> None:
        """A point between two changes to the disk."""

    def begin(self, what: str, total: int, done: int) -> None:
        """Work on `total` bytes begins, of which `done` are done already."""

    def advance(self, num_bytes: int) -> None:
        """So many more are done; negative when some have to be done again."""

    def end(self) -> None:
        """That work is done."""


class ConsoleReporter:
    """Lines, and on a terminal one that is redrawn: `model.safetensors: 1.2 of 3.1 GB (39 %), 85 MB/s`."""

    def __init__(
        self, out: TextIO, is_terminal: bool | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._out, self._clock = out, clock
        self._live = out.isatty() if is_terminal is None else is_terminal
        self._what, self._total, self._done, self._came = "", 0, 0, 0
        self._began_s = self._drawn_s = 0.0

    def say(self, line: str) -> None:
        """A line of its own."""
        self._out.write(f"{line}\n")
        self._out.flush()

    def step(self, name: str) -> None:
        """Not shown."""

    def begin(self, what: str, total: int, done: int) -> None:
        """Draws the line, or says what begins."""
        self._what, self._total, self._done, self._came = what, total, done, 0
        self._began_s = self._drawn_s = self._clock()
        if self._live:
            self._draw()
        else:
            resumed = f", {size(done)} of it there already" if done else ""
            self.say(f"{what}: {size(total)}{resumed}")

    def advance(self, num_bytes: int) -> None:
        """Redraws now and then."""
        self._done += num_bytes
        self._came += num_bytes
        if self._live and self._clock() - self._drawn_s >= REDRAWN_EVERY_S:
            self._draw()

    def end(self) -> None:
        """Leaves the last state standing."""
        if self._live:
            self._draw()
            self._out.write("\n")
            self._out.flush()

    def _draw(self) -> None:
        self._drawn_s = self._clock()
        share = 100 * self._done // self._total if self._total else 100
        took_s = self._drawn_s - self._began_s
        rate = f", {size(int(self._came / took_s))}/s" if took_s > 0 and self._came > 0 else ""
        line = f"{self._what}: {size(self._done)} of {size(self._total)} ({share} %){rate}"
        self._out.write(f"\r{line:<78}")
        self._out.flush()


def size(num_bytes: int) -> str:
    """Three digits or so: `3.1 GB`."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if num_bytes >= factor:
            return f"{num_bytes / factor:.1f} {unit}"
    return f"{num_bytes} bytes"
