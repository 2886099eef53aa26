"""Makes a process slower, whatever it does and on whatever machine: it is stopped for a part of the time, or
for all of it.

Where a process is stopped for nine tenths of the time it does a tenth of its work, as if its core were shared
with nine others. That needs signals that stop and continue processes, so no Windows.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Protocol, Self

import psutil

RUN_S = 0.005
"""How long they run between two stops, about: short beside an answer, long beside what a signal costs."""


class Waits(Protocol):
    """As `threading.Event` is."""

    def is_set(self) -> bool:
        """Whether it is over."""
        ...

    def wait(self, seconds: float, /) -> object:
        """So long, or until it is over."""
        ...


class Slowed:
    """Processes that run for `share` of the time while the block lasts. They may end meanwhile."""

    def __init__(
        self,
        processes: Sequence[psutil.Process],
        share: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`share` is above 0 and at most 1."""
        self._processes = processes
        self._share = share
        self._clock = clock
        self._over = threading.Event()
        self._thread = threading.Thread(target=self.stop_and_go, args=(self._over,), daemon=True)

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """All of them run again."""
        self._over.set()
        self._thread.join()

    def stop_and_go(self, over: Waits) -> None:
        """Until it is over. On a busy machine this thread, too, is late: a stop is as long as the run before
        it was."""
        while not over.is_set():
            began = self._clock()
            over.wait(RUN_S)
            _send(self._processes, signal.SIGSTOP)
            over.wait((self._clock() - began) * (1 - self._share) / self._share)
            _send(self._processes, signal.SIGCONT)


@contextmanager
def standing_still(processes: Sequence[psutil.Process]) -> Iterator[None]:
    """Processes that do nothing while the block lasts. They may end meanwhile."""
    try:
        _send(processes, signal.SIGSTOP)
        yield
    finally:
        _send(processes, signal.SIGCONT)


def _send(processes: Sequence[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)
