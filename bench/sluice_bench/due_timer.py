"""Waits until an instant of the monotonic clock, more exactly than an event loop's timers do.

An event loop rounds its timers to milliseconds. On Linux the kernel has one that does not
(`timerfd_create(2)`, on the clock that `time.perf_counter_ns` reads), which the event loop watches like a
socket: it wakes within a fraction of a millisecond and costs nothing meanwhile. Elsewhere the last stretch is
polled between rounds of I/O, which keeps most of a core busy at some hundred requests a second.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
import sys
import time
from collections.abc import Callable
from typing import Protocol

SPIN_NS = 1_500_000
"""How long before its end a wait is polled where there is no timer of the kernel's."""

_CLOCK_MONOTONIC = 1
_ABSOLUTE = 1
_FLAGS = os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0)
_NS_PER_S = 1_000_000_000


class DueTimer(Protocol):
    """For one waiter at a time; closed by whoever made it."""

    async def until(self, due_ns: int) -> None:
        """Return at `due_ns` of the clock, or at once when that is over."""

    def close(self) -> None:
        """Give back what it holds. Idempotent."""


def due_timer(clock_ns: Callable[[], int]) -> DueTimer:
    """The best there is for a clock, in the running event loop."""
    if clock_ns is time.perf_counter_ns and _kernel_shares_the_clock():
        try:
            return KernelTimer(clock_ns)
        except (OSError, AttributeError, NotImplementedError):
            pass
    return PollingTimer(clock_ns)


def _kernel_shares_the_clock() -> bool:
    clock = time.get_clock_info("perf_counter").implementation
    return sys.platform == "linux" and clock == "clock_gettime(CLOCK_MONOTONIC)"


class PollingTimer:
    """Sleeps, then polls."""

    def __init__(self, clock_ns: Callable[[], int]) -> None:
        self._clock_ns = clock_ns

    async def until(self, due_ns: int) -> None:
        """See `DueTimer`."""
        while (ahead := due_ns - self._clock_ns()) > 0:  # noqa: ASYNC110  nothing will set an event
            await asyncio.sleep(max(0, ahead - SPIN_NS) / _NS_PER_S)

    def close(self) -> None:
        """Holds nothing."""


class KernelTimer:
    """A `timerfd` in the running event loop."""

    def __init__(self, clock_ns: Callable[[], int]) -> None:
        """Raises `OSError` or `AttributeError` where the system has none."""
        self._clock_ns = clock_ns
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = int(self._libc.timerfd_create(_CLOCK_MONOTONIC, _FLAGS))
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._waiter: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._fd, self._rang)

    async def until(self, due_ns: int) -> None:
        """See `DueTimer`."""
        while self._clock_ns() < due_ns:
            self._waiter = self._loop.create_future()
            self._set(due_ns)
            await self._waiter

    def _set(self, due_ns: int) -> None:
        """An instant that is over rings at once. `struct itimerspec`: interval, then the first end."""
        setting = struct.pack("@llll", 0, 0, *divmod(max(1, due_ns), _NS_PER_S))
        if self._libc.timerfd_settime(self._fd, _ABSOLUTE, setting, None) < 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def _rang(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:  # set anew since
            return
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def close(self) -> None:
        """Close the descriptor."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self._loop.remove_reader(fd)
            os.close(fd)
