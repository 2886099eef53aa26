"""A slowed process: it is stopped and goes on, and runs when the block is over, whatever became of it."""

from __future__ import annotations

import signal

import psutil
import pytest

from sluice_bench.rehearsal.slowness import RUN_S, Slowed, standing_still


class Recorded(psutil.Process):
    """A process that notes the signals instead of getting them."""

    def __init__(self, ended: bool = False) -> None:
        self.signals: list[int] = []
        self._has_ended = ended

    def send_signal(self, sig: int) -> None:
        self.signals.append(sig)
        if self._has_ended:
            raise psutil.NoSuchProcess(1)


class Scripted:
    """A thread's waits, and a clock that they move: each run takes three times as long as it should."""

    def __init__(self, rounds: int) -> None:
        self.now = 0.0
        self.waits: list[float] = []
        self._rounds = rounds

    def is_set(self) -> bool:
        return len(self.waits) >= 2 * self._rounds

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += 3 * seconds


def played(process: Recorded, share: float, rounds: int) -> list[float]:
    script = Scripted(rounds)
    slowed = Slowed([process], share, clock=lambda: script.now)
    slowed.stop_and_go(script)
    return script.waits


def test_a_stop_makes_up_for_a_run_that_took_longer() -> None:
    process = Recorded()
    run, stop = played(process, share=0.25, rounds=1)

    assert run == RUN_S
    assert stop == 3 * (3 * RUN_S)  # it ran for three times RUN_S, a quarter of the whole
    assert process.signals == [signal.SIGSTOP, signal.SIGCONT]


def test_whatever_is_stopped_goes_on_afterwards_and_one_that_has_ended_is_nothing() -> None:
    process, ended = Recorded(), Recorded(ended=True)
    with Slowed([ended, process], 0.5):
        while process.signals.count(signal.SIGSTOP) < 3:
            pass

    assert process.signals[-1] == signal.SIGCONT
    assert process.signals == ended.signals


def test_what_stands_still_goes_on_even_when_the_scene_has_failed() -> None:
    process, ended = Recorded(), Recorded(ended=True)
    with pytest.raises(KeyboardInterrupt), standing_still([ended, process]):
        assert process.signals == [signal.SIGSTOP]
        raise KeyboardInterrupt

    assert process.signals == ended.signals == [signal.SIGSTOP, signal.SIGCONT]
