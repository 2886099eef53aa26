"""What deciding costs: real CPU time inside the balancer, apart from the simulated time around it."""

from __future__ import annotations

from array import array
from collections.abc import Callable


class Stopwatch:
    """`clock` gives nanoseconds of real time. Calls inside calls are counted once."""

    __slots__ = ("_clock", "_depth", "_start", "admits_ns", "total_ns")

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._depth = 0
        self._start = 0
        self.admits_ns = array("q")
        """Each admission."""
        self.total_ns = 0
        """All calls of the balancer."""

    def start(self) -> None:
        """The balancer is called."""
        self._depth += 1
        if self._depth == 1:
            self._start = self._clock()

    def pause(self) -> None:
        """It calls back."""
        if self._depth == 1:
            self.total_ns += self._clock() - self._start
        self._depth -= 1

    def stop(self, admitted: bool = False) -> None:
        """It has returned."""
        if self._depth == 1:
            taken = self._clock() - self._start
            self.total_ns += taken
            if admitted:
                self.admits_ns.append(taken)
        self._depth -= 1
