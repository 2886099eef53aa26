"""Simulated time: what happens when, on one heap.

Invariant: time never goes back, and of what is due at one time, what was asked for first happens first. So a
run depends on nothing but its inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

Action = Callable[[Any], None]


class Events:
    """The heap and the clock, seconds."""

    __slots__ = ("_heap", "_order", "happened", "now")

    def __init__(self) -> None:
        self.now = 0.0
        self.happened = 0
        self._heap: list[tuple[float, int, Action, Any]] = []
        self._order = 0

    def at(self, time_s: float, action: Action, argument: Any = None) -> None:
        """Have `action(argument)` called at a time; one that has passed means now."""
        self._order += 1
        heappush(self._heap, (time_s if time_s > self.now else self.now, self._order, action, argument))

    def run(self) -> None:
        """Until nothing is left."""
        heap, happened = self._heap, 0
        while heap:
            self.now, _, action, argument = heappop(heap)
            happened += 1
            action(argument)
        self.happened += happened
