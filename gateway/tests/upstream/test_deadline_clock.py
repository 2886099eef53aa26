"""One lazy timer keeps four deadlines. The loop here is a fake with a clock that tests move by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from sluice_engines.transport import DeadlineExceeded, Deadlines
from sluice_gateway.upstream.deadline_clock import DeadlineClock


class FakeHandle:
    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class FakeLoop:
    """Time and timers, and how many timers were ever made."""

    def __init__(self) -> None:
        self.now = 0.0
        self.made = 0
        self._timers: list[tuple[float, Callable[[], None], FakeHandle]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], None]) -> FakeHandle:
        self.made += 1
        handle = FakeHandle()
        self._timers.append((when, callback, handle))
        return handle

    @property
    def pending(self) -> int:
        return sum(not handle.cancelled for _, _, handle in self._timers)

    def advance(self, seconds: float) -> None:
        self.now += seconds
        while due := [timer for timer in self._timers if timer[0] <= self.now]:
            self._timers.remove(due[0])
            if not due[0][2].cancelled:
                due[0][1]()


class Watched:
    """A clock and what it reported."""

    def __init__(self) -> None:
        self.loop = FakeLoop()
        self.reports: list[str | None] = []
        self.clock = DeadlineClock(cast(Any, self.loop), self._report)

    def _report(self, error: DeadlineExceeded | None) -> None:
        self.reports.append(error.phase if error else None)


LIMITS = Deadlines(first_byte_s=10, idle_s=3, total_s=100)


def test_first_byte_then_idle() -> None:
    watched = Watched()
    watched.clock.start(LIMITS, 0.0)
    watched.loop.advance(9)
    watched.clock.head_arrived()
    watched.loop.advance(2.9)
    assert watched.reports == []
    watched.loop.advance(0.2)
    assert watched.reports == ["idle"]


def test_the_first_byte_is_late() -> None:
    watched = Watched()
    watched.clock.start(LIMITS, 0.0)
    watched.loop.advance(10)
    assert watched.reports == ["first_byte"]


def test_steady_reads_run_into_total_and_make_few_timers() -> None:
    watched = Watched()
    watched.clock.start(LIMITS, 0.0)
    watched.clock.head_arrived()
    while not watched.reports:
        watched.loop.advance(0.01)
        watched.clock.progressed()
    assert watched.reports == ["total"]
    assert 99.9 < watched.loop.now < 100.1
    assert watched.loop.made < 50


def test_a_paused_reader_stops_idle_but_not_total() -> None:
    watched = Watched()
    watched.clock.start(LIMITS, 0.0)
    watched.clock.head_arrived()
    watched.clock.pause()
    watched.loop.advance(50)
    assert watched.reports == []
    watched.clock.resume()
    watched.loop.advance(2.9)
    assert watched.reports == []
    watched.clock.pause()
    watched.loop.advance(60)
    assert watched.reports == ["total"]


def test_total_counts_from_the_call_of_send() -> None:
    watched = Watched()
    watched.loop.now = 95.0
    watched.clock.start(LIMITS, 0.0)
    watched.loop.advance(5)
    assert watched.reports == ["total"]


def test_exchanges_in_turn_share_a_timer() -> None:
    watched = Watched()
    for _ in range(1000):
        watched.clock.start(LIMITS, watched.loop.now)
        watched.clock.head_arrived()
        watched.loop.advance(0.001)
        watched.clock.suspend()
        watched.clock.rest(4.0)
    assert watched.loop.made <= 4
    watched.loop.advance(10)
    assert watched.reports == [None]


def test_stop_leaves_no_timer() -> None:
    watched = Watched()
    watched.clock.start(LIMITS, 0.0)
    watched.clock.stop()
    assert watched.loop.pending == 0
    watched.loop.advance(1000)
    assert watched.reports == []


def test_no_deadlines_no_timer() -> None:
    watched = Watched()
    watched.clock.start(Deadlines(first_byte_s=None, idle_s=None, total_s=None), 0.0)
    watched.clock.head_arrived()
    assert watched.loop.made == 0
