"""Classes of urgency: by when a request should have an endpoint, and how long it may wait for one.

A class has a deadline, in seconds from the arrival: `interactive` 2, `default` 10, `bulk` 300. An urgent
request goes before a less urgent one that came at most the difference of their deadlines earlier, and need
not go before one that came earlier still: earliest deadline first (Liu and Layland, 1973), which is priority
and protection from starving in one rule. `turns.py` and `fairness.py` say what keeps those who ask for too
much from using this against others.

A deadline orders; it does not end a wait. The limit does, and that is the queue's timeout. `bulk` requests,
which nobody sits and waits for, may wait for a tenth more than their deadline where that is longer. With a
timeout so short that a deadline would hardly come before it, the deadline comes before it all the same, or
the class would wait in vain whenever a more urgent one is busy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sluice_router.shelf import Place
from sluice_router.types import PRIORITIES

DEADLINES_S: Mapping[str, float] = {"interactive": 2.0, "default": 10.0, "bulk": 300.0}
"""Of the classes, where nothing else is configured."""

GRACE = 1.1
"""How long a request may wait at least, relative to its deadline."""

BANDS: Mapping[str, int] = {name: index for index, name in enumerate(PRIORITIES)}
"""The classes as numbers, 0 the most urgent."""


@dataclass(frozen=True, slots=True)
class Classes:
    """Deadline and limit of every class, in seconds, by band."""

    deadlines_s: tuple[float, ...]
    limits_s: tuple[float, ...]

    def place(self, priority: str, now: float, order: int, within_s: float | None = None) -> Place:
        """Where a request that arrives now belongs in the queue; `order` decides among equals.

        `within_s` is what the request itself asks for instead of its class's deadline.
        """
        return now + (self.deadlines_s[BANDS[priority]] if within_s is None else within_s), order

    def limit_s(self, priority: str) -> float:
        """How long a request of the class may wait."""
        return self.limits_s[BANDS[priority]]


def classes(timeout_s: float, deadlines_s: Mapping[str, float]) -> Classes:
    """Those of a queue with this timeout and these deadlines, one for each class."""
    limits = timeout_s, timeout_s, max(timeout_s, GRACE * deadlines_s["bulk"])
    deadlines = [
        min(deadlines_s[name], limit_s / GRACE) for name, limit_s in zip(PRIORITIES, limits, strict=True)
    ]
    return Classes(tuple(deadlines), limits)
