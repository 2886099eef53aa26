"""What a look at a running load tells, of records that the client keeps anyway."""

from __future__ import annotations

import io
from typing import Any, cast

from rich.console import Console

from sluice_bench.commands.live_view import LiveView, live_display
from sluice_bench.connection import Exchange
from sluice_bench.load_run import LoadRun
from sluice_bench.records import Failure
from sluice_bench.runs.live import LiveCounter, LiveCounts
from sluice_bench.target import WireRequest

MS = 1_000_000
HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


class FakeRun:
    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []

    @property
    def in_flight(self) -> int:
        return sum(exchange.end_ns is None for exchange in self.exchanges)

    def send(self, at_ms: int) -> Exchange:
        exchange = Exchange(len(self.exchanges), WireRequest(b"", True), at_ms * MS)
        self.exchanges.append(exchange)
        return exchange


def counter() -> tuple[FakeRun, LiveCounter]:
    run = FakeRun()
    return run, LiveCounter(cast(LoadRun, run))


def test_counts_add_up_over_looks_and_each_answer_begins_once() -> None:
    run, live = counter()
    first, second = run.send(0), run.send(10)
    assert live.look() == LiveCounts(sent=2, finished=0, failed=0, in_flight=2, reads=0, first_byte_ms=())
    first.reads = [(5 * MS, HEAD + b"x"), (6 * MS, b"y")]
    second.reads = [(20 * MS, HEAD)]
    seen = live.look()
    assert (seen.reads, seen.first_byte_ms) == (3, (5.0,))
    first.end_ns = 7 * MS
    second.reads.append((30 * MS, b"z"))
    second.end_ns, second.failure = 31 * MS, Failure.TRUNCATED
    run.send(40)
    last = live.look()
    assert last == LiveCounts(sent=3, finished=2, failed=1, in_flight=1, reads=4, first_byte_ms=(20.0,))
    assert live.look().reads == 4


def test_an_answer_that_ends_without_a_body_is_not_waited_for() -> None:
    run, live = counter()
    lost = run.send(0)
    lost.end_ns, lost.failure = MS, Failure.CONNECT_FAILED
    assert live.look().failed == 1
    lost.reads = [(2 * MS, HEAD + b"x")]
    assert live.look().first_byte_ms == ()


def counts(**given: Any) -> LiveCounts:
    fields = {"sent": 0, "finished": 0, "failed": 0, "in_flight": 0, "reads": 0, "first_byte_ms": ()}
    return LiveCounts(**fields | given)


def test_several_processes_are_one_load() -> None:
    both = LiveCounts.together(
        [counts(sent=3, reads=7, first_byte_ms=(1.0,)), counts(sent=2, failed=1, first_byte_ms=(2.0, 3.0))]
    )
    assert both == counts(sent=5, reads=7, failed=1, first_byte_ms=(1.0, 2.0, 3.0))


def test_a_terminal_shows_pace_and_median_wait() -> None:
    now = [100.0]
    page = io.StringIO()
    console = Console(file=page, force_terminal=True, width=120)
    live, tell = live_display(LiveView("requests", 40, lambda: now[0]), console)
    with live:
        tell(counts(finished=4, in_flight=2, reads=100, first_byte_ms=(10.0, 30.0, 20.0)))
        now[0] = 102.0
        tell(counts(finished=9, in_flight=3, failed=1, reads=350))
    shown = page.getvalue()
    assert "9/40" in shown and "20.0 ms" in shown and "125" in shown and "2 s" in shown
